package syncer

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// Without the records nobody knows what a staged file was: it may be the only
// copy of an edit that was displaced, and is kept aside.
func TestPromise_NoLoss_DisplacedEditAndDamagedRecords(t *testing.T) {
	for _, what := range []string{"damaged", "removed"} {
		for _, late := range []bool{false, true} { // it cannot be judged by the first start
			t.Run(what, func(t *testing.T) {
				_, b := committedFile(t, nil, "f", "old")
				b.halt()
				root, err := b.openRoot()
				must(t, err)
				b.write("f", "an unseen edit")
				must(t, root.TakeOut("f", "deadbeef-1")) // as a swap did that nothing judged
				must(t, root.Close())
				b.write("f", "old")
				if what == "damaged" {
					b.damage()
				} else {
					must(t, os.Remove(b.cfg.Records))
				}
				if late {
					b.inject = errorfs.Func(func(op, p string) error {
						if op == "OpenStaged" {
							return errors.New("EIO")
						}
						return nil
					})
					b.start()
					b.settle()
					b.halt()
					b.inject = nil
				}
				b.start()
				oneConflict(t, b, "unknown-deadbeef-1", "an unseen edit")
			})
		}
	}
}

// Where names cannot be exchanged, what was displaced has a name of its own:
// when the look at it fails it is looked at later, and never forgotten.
func TestPromise_NoLoss_DisplacedBesideAndTheLookFails(t *testing.T) {
	for _, fails := range []string{"StatStaged", "Replace"} {
		t.Run(fails, func(t *testing.T) {
			var on, hit, edited atomic.Bool
			var b *box
			h := newHub()
			b = newBox(t, h, "b")
			b.inject = errorfs.Func(func(op, p string) error {
				switch {
				case op == "Exchange":
					return vfs.ErrNoExchange
				case op == "LinkOut" && on.Load() && edited.CompareAndSwap(false, true): // a gateway's edit in this very moment
					must(t, os.WriteFile(b.path("f~"), []byte("unseen edit"), 0o644))
					must(t, os.Rename(b.path("f~"), b.path("f")))
				case op == fails && on.Load() && (fails == "Replace" || strings.HasSuffix(p, "~")) && hit.CompareAndSwap(false, true):
					return os.ErrDeadlineExceeded
				}
				return nil
			})
			b.start()
			b.write("f", "old")
			h.committed(t, "f", "old")
			b.settle()
			on.Store(true)
			h.put(t, "f", "new")
			b.has("f", "new")
			b.settle()
			b.halt()
			if !hit.Load() {
				t.Fatal("nothing failed: the test tests nothing")
			}
			b.start()
			b.until("the edit is kept", func() bool {
				for _, c := range conflictsOf(t, b) {
					if contentOf(t, b, c.ID) == "unseen edit" {
						return true
					}
				}
				return false
			})
		})
	}
}
