package target_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/fallback/target"
)

func TestMain(m *testing.M) {
	// The runtime begins to listen for signals here, and not inside of a bubble of
	// synctest, where a root's leases would have it begin.
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGIO)
	signal.Stop(c)
	goleak.VerifyTestMain(m)
}

// bed is a folder, a target, and what is between them.
type bed struct {
	t        *testing.T
	src, dst string
	data     string
	tree     config.Tree
	opts     target.Options
	through  func(io.ReadWriteCloser) io.ReadWriteCloser // of the pusher's end
}

func newBed(t *testing.T) *bed {
	dir := t.TempDir()
	b := &bed{
		t: t, src: filepath.Join(dir, "src"), dst: filepath.Join(dir, "dst"), data: filepath.Join(dir, "data"),
		opts: target.Options{Trees: []string{""}, Delete: target.DeleteHeld},
	}
	b.tree = config.Tree{Name: "server", Path: b.dst}
	if err := os.Mkdir(b.src, 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

// write writes files below a directory; content "" removes. What stood there
// goes first: nothing is ever written through a link, wherever it may lead.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for p, content := range files {
		p = filepath.Join(dir, p)
		err := os.RemoveAll(p)
		if err == nil && content != "" {
			if err = os.MkdirAll(filepath.Dir(p), 0o755); err == nil {
				err = writeNew(p, content)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// writeNew makes a file where nothing stands: O_EXCL follows no link.
func writeNew(p, content string) error {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}

// read reads everything below a directory, but for .gatesync.
func read(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		switch {
		case rel == ".":
		case d.Name() == ".gatesync":
			return filepath.SkipDir
		case d.IsDir():
			out[rel+"/"] = ""
		case d.Type() == fs.ModeSymlink:
			l, err := os.Readlink(p)
			out[rel] = "-> " + l
			return err
		default:
			b, err := os.ReadFile(p)
			out[rel] = string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (b *bed) same() {
	b.t.Helper()
	src, dst := read(b.t, b.src), read(b.t, b.dst)
	if !maps.Equal(src, dst) {
		b.t.Fatalf("the target differs:\n%s", diff(src, dst))
	}
}

func diff(a, b map[string]string) string {
	var out bytes.Buffer
	for _, p := range slices.Sorted(maps.Keys(a)) {
		if c, ok := b[p]; !ok {
			fmt.Fprintf(&out, "- %s\n", p)
		} else if c != a[p] {
			fmt.Fprintf(&out, "! %s: %.40q, %.40q\n", p, a[p], c)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[p]; !ok {
			fmt.Fprintf(&out, "+ %s\n", p)
		}
	}
	return out.String()
}

// push pushes once.
func (b *bed) push() (target.Summary, error) {
	b.t.Helper()
	r, err := target.OpenReceiver(target.ReceiverConfig{DataDir: b.data, Trees: []config.Tree{b.tree}, Version: "test"})
	if err != nil {
		return target.Summary{}, err
	}
	defer func() {
		if err := r.Close(); err != nil {
			b.t.Error(err)
		}
	}()
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- r.Serve(context.Background(), there) }()
	src, err := target.OpenFolder(b.src)
	if err != nil {
		b.t.Fatal(err)
	}
	defer src.Close()
	var conn io.ReadWriteCloser = here
	if b.through != nil {
		conn = b.through(conn)
	}
	sums, err := target.Push(context.Background(), conn, src, b.opts)
	served := <-done
	if err == nil && served != nil {
		b.t.Fatalf("the pusher is content, the target says: %v", served)
	}
	if len(sums) == 0 {
		return target.Summary{}, err
	}
	return sums[0], err
}

// must pushes what has to succeed, with nothing held.
func (b *bed) must() target.Summary {
	b.t.Helper()
	s, err := b.push()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, l := range s.Lines {
		if l.What == target.WhatHeld || l.What == target.WhatFailed {
			b.t.Fatalf("%s %s: %s", l.What, l.Path, l.Why)
		}
	}
	b.same()
	return s
}
