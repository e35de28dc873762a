package target_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/fallback/target"
	"github.com/gatesync/gatesync/manifest"
)

// stopped is a source that stops in the middle of a file, as a pusher does that
// was stopped itself, until it is let go on.
type stopped struct {
	target.Source
	reached chan struct{} // is closed when it has stopped
	on      chan struct{}
	once    sync.Once
}

func (s *stopped) Open(ctx context.Context, tree string, p manifest.Path, ref manifest.BlobRef) (io.ReadCloser, error) {
	s.once.Do(func() {
		close(s.reached)
		<-s.on
	})
	return s.Source.Open(ctx, tree, p, ref)
}

// receivers serve sessions: one process with all of them, as a listening target
// does, or each its own, as sshd starts them.
func receivers(t *testing.T, b *bed, each bool) func(conn io.ReadWriteCloser) error {
	open := func() *target.Receiver {
		r, err := target.OpenReceiver(target.ReceiverConfig{DataDir: b.data, Trees: []config.Tree{b.tree}, Version: "test", Late: each})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if each {
		return func(conn io.ReadWriteCloser) error {
			r := open()
			return errors.Join(r.Serve(context.Background(), conn), r.Close())
		}
	}
	r := open()
	t.Cleanup(func() { _ = r.Close() })
	return func(conn io.ReadWriteCloser) error { return r.Serve(context.Background(), conn) }
}

// session is one push to them.
func (b *bed) session(serve func(io.ReadWriteCloser) error, src target.Source, incarnation, epoch, revision uint64) error {
	here, there := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- serve(there) }()
	o := b.opts
	o.Cluster, o.Incarnation, o.Epoch, o.Revision = "c-1", incarnation, epoch, revision
	_, err := target.Push(context.Background(), here, src, o)
	<-served
	return err
}

func folder(t *testing.T, dir string) *target.Folder {
	f, err := target.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func isStale(err error) bool {
	var no *target.RefusedError
	return errors.As(err, &no) && no.Code == target.CodeStale
}

// A pusher that was stopped in the middle does not hold up the next one, and
// when it goes on it writes nothing any more.
func TestPromise_NoTornFile_PusherFencedInTheMiddle(t *testing.T) {
	for name, each := range map[string]bool{"one process": false, "a process each": true} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			serve := receivers(t, b, each)
			write(t, b.src, someFiles(20))
			if err := b.session(serve, folder(t, b.src), 1, 1, 1); err != nil {
				t.Fatal(err)
			}
			old := filepath.Join(t.TempDir(), "old")
			write(t, old, map[string]string{"d1/f1.xml": "<old/>", "only.xml": "<old/>"})
			src := &stopped{Source: folder(t, old), reached: make(chan struct{}), on: make(chan struct{})}
			first := make(chan error, 1)
			go func() { first <- b.session(serve, src, 1, 1, 2) }()
			<-src.reached
			// Another one takes over: a newer epoch, or the same pusher again.
			write(t, b.src, map[string]string{"d1/f1.xml": "<new/>"})
			if err := b.session(serve, folder(t, b.src), 1, 2, 3); err != nil {
				t.Fatal(err)
			}
			b.same()
			close(src.on)
			if err := <-first; err == nil {
				t.Fatal("the older one was content")
			}
			if err := b.session(serve, folder(t, old), 1, 1, 4); !isStale(err) {
				t.Fatalf("the older one came again: %v", err)
			}
			b.same()
		})
	}
}

// Of one epoch the last session goes on: it is the same pusher, whose connection
// had died without a word.
func TestASessionTakesOverFromItself(t *testing.T) {
	b := newBed(t)
	serve := receivers(t, b, false)
	write(t, b.src, someFiles(5))
	src := &stopped{Source: folder(t, b.src), reached: make(chan struct{}), on: make(chan struct{})}
	first := make(chan error, 1)
	go func() { first <- b.session(serve, src, 1, 7, 1) }()
	<-src.reached
	if err := b.session(serve, folder(t, b.src), 1, 7, 1); err != nil {
		t.Fatal(err)
	}
	b.same()
	close(src.on)
	if err := <-first; err == nil {
		t.Fatal("both sessions went on")
	}
}

// What a fence remembers outlives the process; of two lives of a cluster the
// newer one goes on, whatever its epochs and revisions are; other clusters have
// their own.
func TestFencesOutliveRestarts(t *testing.T) {
	b := newBed(t)
	write(t, b.src, someFiles(3))
	push := func(incarnation, epoch, revision uint64) error {
		return b.session(receivers(t, b, true), folder(t, b.src), incarnation, epoch, revision)
	}
	for _, c := range []struct {
		incarnation, epoch, revision uint64
		ok                           bool
	}{
		{1, 5, 10, true}, {1, 4, 11, false}, {1, 5, 9, false}, {1, 6, 10, true}, {1, 5, 12, false},
		{2, 1, 3, true}, {1, 9, 20, false}, {2, 1, 2, false}, {2, 2, 3, true},
	} {
		if err := push(c.incarnation, c.epoch, c.revision); c.ok && err != nil || !c.ok && !isStale(err) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	// A file that says nothing is an error that says what to do.
	if err := os.WriteFile(filepath.Join(b.data, "trees", "server", "fence.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := push(3, 1, 1); err == nil {
		t.Error("a damaged fence lets everybody in")
	}
}

// Two targets of a cluster that are one tree of one receiver would displace each
// other for ever: the second is refused, and told of the first, until that is gone.
func TestOneReceiverUnderTwoNames(t *testing.T) {
	b := newBed(t)
	serve := receivers(t, b, false)
	write(t, b.src, someFiles(3))
	push := func(name string, epoch uint64, all ...string) error {
		b.opts.Target, b.opts.Targets = name, all
		return b.session(serve, folder(t, b.src), 1, epoch, 1)
	}
	if err := push("edge", 1, "edge", "gw9"); err != nil {
		t.Fatal(err)
	}
	var no *target.RefusedError
	err := push("gw9", 2, "edge", "gw9")
	if !errors.As(err, &no) || no.Code != target.CodeTwice || !strings.Contains(no.Message, `"edge" and "gw9"`) {
		t.Fatalf("the second name: %v", err)
	}
	if err := push("edge", 1, "edge", "gw9"); err != nil {
		t.Errorf("the first name, afterwards: %v", err)
	}
	if err := push("gw9", 2, "gw9"); err != nil {
		t.Errorf("the second name, once the first is no target any more: %v", err)
	}
	if err := push("edge", 1, "edge"); !isStale(err) {
		t.Errorf("a pusher that has not heard of it: %v", err)
	}
}
