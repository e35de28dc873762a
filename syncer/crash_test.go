package syncer

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/sealed"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// crashAt lets n operations of the file system pass and then none: the disk
// stays as it is from there on. The record file is copied at that moment, as
// the last transaction left it.
func crashAt(b *box, n int64, copyTo string, inner errorfs.Injector) (i errorfs.Injector, crashed *atomic.Bool) {
	var count atomic.Int64
	crashed = &atomic.Bool{}
	snapshot := make(chan struct{})
	return errorfs.Func(func(op, p string) error {
		k := count.Add(1)
		if k < n {
			if inner != nil {
				return inner.Op(op, p)
			}
			return nil
		}
		if k == n {
			crashed.Store(true)
			err := b.s.rec.db.(*sealed.DB).CopyTo(copyTo)
			if err != nil {
				b.t.Error(err)
			}
			close(snapshot)
		}
		<-snapshot
		return errorfs.ErrCrashed
	}), crashed
}

// crashDuring starts from a settled tree, commits from elsewhere, crashes at
// the nth operation and starts again.
func crashDuring(t *testing.T, n int64, edit *atomic.Bool) (b *box, h *hub, crashed bool) {
	var sw errorfs.Switch
	h = newHub()
	b = newBox(t, h, "b")
	b.inject = &sw
	b.start()
	for _, f := range []string{"changed", "removed", "d/changed", "d/removed"} {
		b.write(f, "old "+f)
	}
	for _, f := range []string{"changed", "removed", "d/changed", "d/removed"} {
		h.committed(t, f, "old "+f)
	}
	b.settle()

	var inner errorfs.Injector
	if edit != nil {
		inner = once("Exchange", "changed", func() {
			edit.Store(true)
			must(t, os.WriteFile(filepath.Join(b.dir, "beside"), []byte("unseen"), 0o644))
			must(t, os.Rename(filepath.Join(b.dir, "beside"), b.path("changed")))
		})
	}
	saved := filepath.Join(b.dir, "saved.db")
	crash, did := crashAt(b, n, saved, inner)
	sw.Set(crash)
	b.node.mu.Lock()
	old := func(p string) manifest.Node { n, _ := h.tree.Get(manifest.Path(p)); return n }
	changes := []manifest.Change{
		{Path: "removed", Expect: old("removed").Revision},
		{Path: "d/removed", Expect: old("d/removed").Revision},
		{Path: "e", New: manifest.Entry{Kind: manifest.Dir, Mode: 0o755}},
		{Path: "l", New: linkTo("changed")},
	}
	for _, p := range []string{"changed", "d/changed", "e/new"} {
		ref, err := b.node.store.PutBytes([]byte("new " + p))
		must(t, err)
		changes = append(changes, manifest.Change{Path: manifest.Path(p), Expect: old(p).Revision, New: manifest.Entry{
			Kind: manifest.File, Mode: 0o644, Size: ref.Size, Digest: ref.Digest,
		}})
	}
	b.node.mu.Unlock()
	h.change(t, changes...)
	b.until("it crashed or was done", func() bool {
		st, err := b.s.Status(ctxOf(t))
		return did.Load() || err == nil && st.Loop.Applied >= h.at() && st.Quarantine == 0
	})
	b.halt()
	sw.Set(nil)
	if did.Load() {
		must(t, os.Rename(saved, filepath.Join(b.dir, "t.db")))
	}
	b.start()
	return b, h, did.Load()
}

func (h *hub) at() manifest.Revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.revision()
}

func linkTo(target string) manifest.Entry {
	return manifest.Entry{
		Kind: manifest.Symlink, Mode: 0o777, Size: int64(len(target)), Target: target, Digest: manifest.DigestOf([]byte(target)),
	}
}

// TestCrashBetweenAnyTwoSteps dies before each operation on the disk in turn.
func TestCrashBetweenAnyTwoSteps(t *testing.T) {
	step := int64(1)
	if testing.Short() {
		step = 7
	}
	for n, more := int64(1), true; more; n += step {
		t.Run(fmt.Sprintf("operation %d", n), func(t *testing.T) {
			b, h, crashed := crashDuring(t, n, nil)
			more = crashed
			b.settle()
			stagedEmpty(t, b)
			want := map[string]string{
				"changed": "644 new changed", "d": "dir 755", "d/changed": "644 new d/changed",
				"e": "dir 755", "e/new": "644 new e/new", "l": "-> changed",
			}
			got := b.tree()
			for p := range got {
				if got[p] != want[p] {
					t.Errorf("%s is %q, want %q", p, got[p], want[p])
				}
			}
			if len(got) != len(want) {
				t.Errorf("the tree is %v", got)
			}
			if c := conflictsOf(t, b); len(c) > 0 {
				t.Errorf("conflicts out of nothing: %+v", c)
			}
			if len(h.commits) > 0 && h.commits[len(h.commits)-1].ID.Node == "b" {
				t.Errorf("the crash was proposed as an edit: %+v", h.commits[len(h.commits)-1])
			}
		})
		if t.Failed() {
			return
		}
	}
}

// TestCrashLosesNoUnseenEdit: the same, while somebody edits a file in the very
// moment of the swap. Wherever it ends, the edit is somewhere.
func TestCrashLosesNoUnseenEdit(t *testing.T) {
	step := int64(1)
	if testing.Short() {
		step = 7
	}
	for n, more := int64(1), true; more; n += step {
		t.Run(fmt.Sprintf("operation %d", n), func(t *testing.T) {
			var edited atomic.Bool
			b, h, crashed := crashDuring(t, n, &edited)
			more = crashed
			b.settle()
			stagedEmpty(t, b)
			kept := false
			for _, c := range conflictsOf(t, b) {
				kept = kept || contentOf(t, b, c.ID) == "unseen"
			}
			for _, c := range h.commits {
				for _, ch := range c.Changes {
					kept = kept || ch.New.Digest == manifest.DigestOf([]byte("unseen"))
				}
			}
			if edited.Load() && !kept {
				t.Errorf("the edit is lost; tree %v", b.tree())
			}
			if !crashed && !edited.Load() {
				t.Error("there was no edit: the test tests nothing")
			}
		})
		if t.Failed() {
			return
		}
	}
}
