package target_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/fallback/target"
)

// What the source cannot say anything about is left alone at the target.
func TestPushOfWhatIsBeingWritten(t *testing.T) {
	b := newBed(t)
	write(t, b.src, someFiles(10))
	write(t, b.src, map[string]string{"log": "line 1\n", "link": "a file", "closed/x": "x"})
	b.must()
	f, err := os.OpenFile(filepath.Join(b.src, "log"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("line 2, half writ"); err != nil {
		t.Fatal(err)
	}
	write(t, b.src, map[string]string{"link": "", "d1/f1.xml": "<changed/>"})
	if err := os.Symlink(filepath.Join(t.TempDir(), "outside"), filepath.Join(b.src, "link")); err != nil {
		t.Fatal(err)
	}
	s, err := b.push()
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, l := range s.Lines {
		if l.What != target.WhatFailed || l.Why == "" {
			t.Errorf("%+v", l)
		}
		left = append(left, string(l.Path))
	}
	got := read(t, b.dst)
	if strings.Join(left, " ") != "link log" || got["log"] != "line 1\n" || got["link"] != "a file" || got["d1/f1.xml"] != "<changed/>" {
		t.Fatalf("%v: %q %q %q", left, got["log"], got["link"], got["d1/f1.xml"])
	}
	if _, err := f.WriteString("ten\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, b.src, map[string]string{"link": "another file"})
	b.must()
}

// Many small deletions within a minute are a large one.
func TestPromise_NoSurpriseDelete_PushAfterPush(t *testing.T) {
	b := newBed(t)
	write(t, b.src, someFiles(60))
	b.must()
	gone := func(from, to int) {
		for i := from; i < to; i++ {
			write(t, b.src, map[string]string{fmt.Sprintf("d%d/f%d.xml", i%7, i): ""})
		}
	}
	gone(0, 15)
	if s := b.must(); s.Deleted != 15 {
		t.Fatalf("%+v", s)
	}
	gone(15, 30)
	if s, err := b.push(); err != nil || s.Held() != 15 || s.Deleted != 0 {
		t.Fatalf("%v: %d held, %d deleted", err, s.Held(), s.Deleted)
	}
}

// Of one cluster's pushers the newest epoch goes on, and a node that is behind
// does not turn the target back.
func TestPushStale(t *testing.T) {
	b := newBed(t)
	write(t, b.src, someFiles(3))
	b.opts.Cluster = "c-1"
	push := func(epoch, revision uint64, ok bool) {
		t.Helper()
		b.opts.Epoch, b.opts.Revision = epoch, revision
		_, err := b.push()
		var no *target.RefusedError
		if ok && err != nil || !ok && (!errors.As(err, &no) || no.Code != target.CodeStale) {
			t.Fatalf("epoch %d, revision %d: %v", epoch, revision, err)
		}
	}
	push(2, 10, true)
	push(1, 11, false)
	push(2, 9, false)
	push(3, 10, true)
	push(2, 12, false)
	b.opts.DryRun = true
	push(4, 20, true) // of a dry run nothing is remembered
	b.opts.DryRun = false
	push(3, 11, true)
}

// What a listening target is known by outlives its restart, and another's token
// opens nothing.
func TestListenTokens(t *testing.T) {
	dir := t.TempDir()
	key, err := target.LoadKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := target.LoadKey(dir)
	if err != nil || again.Token.String() != key.Token.String() {
		t.Fatal("another token after a restart", err)
	}
	if st, err := os.Stat(filepath.Join(dir, "token")); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("the token's file: %v %v", st, err)
	}
	r, err := target.OpenReceiver(target.ReceiverConfig{
		DataDir: dir, Trees: []config.Tree{{Name: "t", Path: filepath.Join(t.TempDir(), "t")}},
		Secret: func(s []byte) []byte { return s }, Want: key.Token.Secret,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	src, err := target.OpenFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for _, c := range []struct {
		secret []byte
		ok     bool
	}{{key.Token.Secret, true}, {nil, false}, {[]byte("another"), false}, {key.Token.Secret[:19], false}} {
		here, there := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- r.Serve(context.Background(), there) }()
		_, err := target.Push(context.Background(), here, src, target.Options{Trees: []string{""}, Delete: target.DeleteHeld, Secret: c.secret})
		<-served
		var no *target.RefusedError
		if c.ok && err != nil || !c.ok && (!errors.As(err, &no) || no.Code != target.CodeToken) {
			t.Errorf("secret %x: %v", c.secret, err)
		}
	}
}
