package errorfs

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/gatesync/gatesync/vfs"
)

// behind opens a root, in front of it an injector, in front of that a gate.
func behind(t *testing.T, i Injector) (*vfs.Gate, vfs.FS) {
	t.Helper()
	g := vfs.NewGate(t.TempDir())
	return g, vfs.Behind(g, open(t, i))
}

func TestGatedFSDoesWhatTheFSDoes(t *testing.T) {
	root := openRoot(t)
	if c := root.Capabilities(); !c.Exchange || !c.Leases {
		t.Skip("the filesystem lacks exchange or leases")
	}
	f := vfs.Behind(vfs.NewGate(root.Path()), root)
	if f.Path() != root.Path() || f.Capabilities() != root.Capabilities() {
		t.Error("path or capabilities differ")
	}
	for op, err := range everything(f) {
		if err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// Whichever operation hangs, its caller goes on, and so do all that come after
// it; none of them starts anything.
func TestGatedFSWhateverHangs(t *testing.T) {
	for _, op := range operations() {
		if slices.Contains([]string{LeaseIntact, LeaseGive}, op) {
			continue // never asked of a file server, see Gate
		}
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := Hang(op)
				var trace Trace
				g, f := behind(t, Chain(&trace, h))
				errs := everything(f)
				if !errors.Is(errs[op], vfs.ErrHung) && op != FileClose { // everything does not ask each
					t.Errorf("%s: %v", op, errs[op])
				}
				begun := len(trace.Ops())
				if err := f.Check(); !errors.Is(err, vfs.ErrHung) || len(trace.Ops()) != begun || g.Stuck() != 1 {
					t.Errorf("the next operation: %v, %d stuck, started %q", err, g.Stuck(), trace.Ops()[begun:])
				}
				h.Release()
				synctest.Wait()
				if err := f.Check(); err != nil || g.Stuck() != 0 {
					t.Errorf("after it has come back: %v, %d stuck", err, g.Stuck())
				}
			})
		})
	}
}
