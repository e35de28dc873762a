package syncer

import (
	"fmt"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/vfs/errorfs"
)

// TestPromise_NoLoss_AConflictOutlivesAFault: something fails once right behind
// the swap that ends a conflict. Whatever is tried again then, the loser stays
// retrievable.
func TestPromise_NoLoss_AConflictOutlivesAFault(t *testing.T) {
	for _, op := range []string{"SyncDir", "StatStaged", "RemoveStaged"} {
		t.Run(fmt.Sprint("after the swap fails ", op), func(t *testing.T) {
			var armed, hit atomic.Bool
			h, b := committedFile(t, errorfs.Func(func(o, _ string) error {
				if o == "Exchange" && !hit.Load() {
					armed.Store(true)
				}
				if o == op && armed.CompareAndSwap(true, false) {
					hit.Store(true)
					return unix.EIO
				}
				return nil
			}), "f", "old")
			b.halt()
			b.write("f", "lost edit")
			h.put(t, "f", "winner")
			armed.Store(false)
			hit.Store(false)
			b.start()
			b.has("f", "winner")
			stagedEmpty(t, b)
			b.settle()
			if !hit.Load() {
				t.Error("nothing failed: the test tests nothing")
			}
			kept := 0
			for _, c := range conflictsOf(t, b) {
				if contentOf(t, b, c.ID) == "lost edit" {
					kept++
				}
			}
			if kept == 0 {
				t.Errorf("the losing edit is nowhere: %+v", conflictsOf(t, b))
			}
		})
	}
}
