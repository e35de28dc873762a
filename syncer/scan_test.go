package syncer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// Directories are made and moved all the time: a complete scan comes all the
// same when it is due.
func TestCompleteScanComesWhateverElseIsScanned(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b")
	b.change = func(c *Config) { c.ScanInterval = 200 * time.Millisecond }
	b.start()
	b.write("d/x", "v")
	h.committed(t, "d/x", "v")
	b.settle()
	ctx, cancel := context.WithCancel(ctxOf(t))
	defer cancel()
	over := make(chan struct{})
	go func() { // as the watcher does for each directory that is made or moved
		defer close(over)
		for ctx.Err() == nil {
			next := b.s.scanner.done.next()
			b.s.scanner.request("d")
			select {
			case <-next:
			case <-ctx.Done():
			}
		}
	}()
	was := b.s.scanner.status().Ended
	for range 3 {
		b.until("another complete scan", func() bool { return b.s.scanner.status().Ended.After(was) })
		was = b.s.scanner.status().Ended
	}
	cancel()
	<-over
}

// A directory that a joiner cannot read: what stands in it is unknown for as
// long as that lasts, and status names it.
func TestPromise_NoSurpriseDelete_JoinerCannotReadADirectory(t *testing.T) {
	var bad atomic.Bool
	bad.Store(true)
	h := newHub()
	b := newBox(t, h, "b")
	b.change = func(c *Config) { c.Joiner, c.ScanInterval = true, 300*time.Millisecond }
	b.inject = errorfs.Func(func(op, p string) error {
		if op == "ReadDir" && p == "d" && bad.Load() {
			return errors.New("EIO")
		}
		return nil
	})
	h.change(t, manifest.Change{Path: "d", New: manifest.Entry{Kind: manifest.Dir, Mode: 0o755}})
	b.write("d/mine", "of before the join")
	before := h.revision()
	b.start()
	b.settle()
	b.until("it joined, but for d", func() bool {
		st, err := b.s.Status(ctxOf(t))
		must(t, err)
		return !st.Loop.Joiner && st.Loop.Notes["d"].Guard == GuardUnread && strings.Contains(fmt.Sprint(st.Warnings), `"d" cannot be read`)
	})
	b.write("edit", "elsewhere")
	h.committed(t, "edit", "elsewhere") // it is a node like any other
	b.halt()
	b.start() // and still knows of d
	b.settle()
	bad.Store(false)
	b.until("what stands in d is held, and d is not", func() bool { return fmt.Sprint(b.heldPaths()) == "[joiner:d/mine]" })
	b.settle()
	if h.revision() != before+1 {
		t.Errorf("%d revisions, want %d: a joiner's file was proposed", h.revision(), before+1)
	}
}
