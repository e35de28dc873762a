package syncer

import (
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// Another node's file may have a mode that keeps this daemon, where it is not
// root, from reading it: it stands here all the same, is no edit, and is
// followed, changed and removed like any other.
func TestModesThatTheDaemonCannotRead(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b")
	b.inject = errorfs.Func(func(op, p string) error { // as the kernel answers who is not root
		if op != "Open" && op != "SyncFile" {
			return nil
		}
		if st, err := os.Lstat(b.path(p)); err == nil && st.Mode()&0o400 == 0 {
			return &fs.PathError{Op: "open", Path: p, Err: fs.ErrPermission}
		}
		return nil
	})
	b.start()
	commit := func(content string, mode uint32) {
		t.Helper()
		ref, err := b.node.store.PutBytes([]byte(content))
		must(t, err)
		h.mu.Lock()
		old, _ := h.tree.Get("f")
		h.mu.Unlock()
		h.change(t, manifest.Change{Path: "f", Expect: old.Revision, New: manifest.Entry{
			Kind: manifest.File, Mode: mode, Size: ref.Size, Digest: ref.Digest,
		}})
	}
	for i, want := range []struct {
		content string
		mode    uint32
	}{{"v1", 0o200}, {"v1", 0o640}, {"v1", 0}, {"v2", 0}, {"v3", 0o200}, {"v3", 0o644}, {"v3", 0}} {
		commit(want.content, want.mode)
		b.until(fmt.Sprint("step ", i), func() bool {
			st, err := os.Lstat(b.path("f"))
			return err == nil && uint32(st.Mode().Perm()) == want.mode && b.read("f") == want.content
		})
		b.settle()
		b.settle()
		st, err := b.s.Status(ctxOf(t))
		must(t, err)
		if len(st.Loop.Busy)+len(st.Loop.Failing)+len(st.Loop.Notes) > 0 || st.Loop.Unsettled > 0 {
			t.Errorf("step %d: %+v", i, st.Loop)
		}
		if got := h.revision(); got != manifest.Revision(i+1) {
			t.Fatalf("step %d: %d revisions: a mode of another's was offered as an edit", i, got)
		}
	}
	h.drop(t, "f")
	b.gone("f")
	b.until("what came out was judged", func() bool { return len(stagedNames(t, b)) == 0 })
	if c := conflictsOf(t, b); len(c) > 0 {
		t.Errorf("conflicts: %+v", c)
	}
	// A gateway's own file that cannot be read is named.
	b.write("mine", "x")
	must(t, os.Chmod(b.path("mine"), 0))
	b.s.Hint("mine")
	b.until("status names it", func() bool {
		st, err := b.s.Status(ctxOf(t))
		must(t, err)
		return len(st.Loop.Busy) == 1 && st.Loop.Busy[0].Path == "mine"
	})
}
