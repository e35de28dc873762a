package syncer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/vfs/errorfs"

	"golang.org/x/sys/unix"
)

// once runs fn before the first operation of that name on that path.
func once(op, path string, fn func()) errorfs.Injector {
	var o sync.Once
	return errorfs.Func(func(got, p string) error {
		if got == op && p == path {
			o.Do(fn)
		}
		return nil
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// committedFile makes a box whose tree has one settled file.
func committedFile(t *testing.T, inject errorfs.Injector, p, content string) (*hub, *box) {
	t.Helper()
	h := newHub()
	b := newBox(t, h, "b")
	b.inject = inject
	b.start()
	b.write(p, content)
	h.committed(t, p, content)
	b.settle()
	return h, b
}

// oneConflict waits for exactly one conflict that kept content of p.
func oneConflict(t *testing.T, b *box, p, content string) {
	t.Helper()
	b.until("the conflict is recorded", func() bool { return len(conflictsOf(t, b)) > 0 })
	all := conflictsOf(t, b)
	if len(all) != 1 || all[0].Path != manifest.Path(p) {
		t.Fatalf("conflicts: %+v", all)
	}
	if got := contentOf(t, b, all[0].ID); got != content {
		t.Errorf("kept aside %q, want %q", got, content)
	}
}

func stagedEmpty(t *testing.T, b *box) {
	t.Helper()
	b.until("nothing is staged", func() bool { return len(stagedNames(t, b)) == 0 })
}

func stagedNames(t *testing.T, b *box) []string {
	t.Helper()
	r, err := vfs.OpenRoot(b.root, vfs.Options{})
	must(t, err)
	defer r.Close()
	names, err := r.ListStaged()
	must(t, err)
	return names
}

func TestSwapKeepsAnEditMadeBetweenLookAndSwap(t *testing.T) {
	for name, edit := range map[string]func(b *box){
		"in place": func(b *box) { b.write("f", "unseen") },
		"by rename": func(b *box) {
			b.write("elsewhere~", "unseen")
			must(b.t, os.Rename(b.path("elsewhere~"), b.path("f")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var sw errorfs.Switch
			h, b := committedFile(t, &sw, "f", "old")
			b.node.mu.Lock()
			b.node.refuse = errors.New("no quorum") // the edit cannot be proposed in time
			b.node.mu.Unlock()
			sw.Set(once("Exchange", "f", func() { edit(b) }))
			h.put(t, "f", "new from elsewhere")
			b.has("f", "new from elsewhere")
			oneConflict(t, b, "f", "unseen")
			stagedEmpty(t, b)
		})
	}
}

func TestSwapKeepsWhatAWriterAddsAfterwards(t *testing.T) {
	var sw errorfs.Switch
	h, b := committedFile(t, &sw, "f", "old")
	opened, written := make(chan *os.File), make(chan struct{})
	sw.Set(once("Exchange", "f", func() {
		// The open is held up by our lease until it is broken, and it has
		// found the old inode by then.
		began := make(chan struct{})
		go func() {
			close(began)
			f, err := os.OpenFile(b.path("f"), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Error(err)
			}
			opened <- f
		}()
		<-began
		f := <-opened
		go func() {
			defer close(written)
			for b.read("f") != "new" { // until the swap is done
			}
			_, err := f.WriteString(" and unseen")
			if err := errors.Join(err, f.Close()); err != nil {
				t.Error(err)
			}
		}()
	}))
	h.put(t, "f", "new")
	b.has("f", "new")
	<-written
	oneConflict(t, b, "f", "old and unseen")
	stagedEmpty(t, b)
	if got := b.read("f"); got != "new" {
		t.Errorf("the tree has %q", got)
	}
}

func TestSwapWaitsForAWriter(t *testing.T) {
	h, b := committedFile(t, nil, "f", "old")
	w, err := os.OpenFile(b.path("f"), os.O_WRONLY, 0)
	must(t, err)
	h.put(t, "f", "new")
	b.until("the step was busy", func() bool {
		st, err := b.s.Status(ctxOf(t))
		return err == nil && st.Loop.Applied < st.Loop.Revision && b.read("f") == "old"
	})
	must(t, w.Close())
	b.has("f", "new")
	if c := conflictsOf(t, b); len(c) != 0 {
		t.Errorf("conflicts without an edit: %+v", c)
	}
}

func TestRemovePutsAnEditBack(t *testing.T) {
	var sw errorfs.Switch
	h, b := committedFile(t, &sw, "f", "old")
	sw.Set(once("TakeOut", "f", func() { b.write("f", "edited at the last moment") }))
	h.drop(t, "f")
	// The edit was made without knowing of the removal: it loses the race for
	// the path or wins it, but its content is somewhere.
	b.until("the edit is committed or kept", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.tree.Entry("f").Digest == manifest.DigestOf([]byte("edited at the last moment")) || len(conflictsOf(t, b)) == 1
	})
	stagedEmpty(t, b)
}

func TestRemoveLeavesIgnoredFilesBehind(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b")
	ig, err := manifest.NewIgnore("plain", []string{"*.log"})
	must(t, err)
	b.change = func(c *Config) { c.Ignore = ig }
	b.start()
	b.write("d/f", "x")
	b.write("d/own.log", "mine")
	h.committed(t, "d/f", "x")
	b.settle()
	h.drop(t, "d/f")
	h.drop(t, "d")
	b.gone("d/f")
	b.until("d is told as left behind", func() bool {
		st, err := b.s.Status(ctxOf(t))
		return err == nil && st.Loop.Notes["d"].Guard == GuardLeft
	})
	if got := b.read("d/own.log"); got != "mine" {
		t.Errorf("the ignored file is %q", got)
	}
	b.settle()
	if h.tree.Entry("d").IsDir() {
		t.Error("what was left behind was proposed anew")
	}
}

func TestFreshMTimeOnContentAndNotOnMode(t *testing.T) {
	h, b := committedFile(t, nil, "f", "old")
	before, err := os.Stat(b.path("f"))
	must(t, err)
	h.put(t, "f", "new")
	b.has("f", "new")
	after, err := os.Stat(b.path("f"))
	must(t, err)
	if d := after.ModTime().Sub(before.ModTime()); d.Seconds() < 1 {
		t.Errorf("the mtime grew by %s only", d)
	}
	b.settle()
	e := h.tree.Entry("f")
	e.Mode = 0o755
	old, _ := h.tree.Get("f")
	h.change(t, manifest.Change{Path: "f", Expect: old.Revision, New: e})
	b.until("the mode is there", func() bool { st, err := os.Stat(b.path("f")); return err == nil && st.Mode().Perm() == 0o755 })
	last, err := os.Stat(b.path("f"))
	must(t, err)
	if !last.ModTime().Equal(after.ModTime()) {
		t.Errorf("a change of mode touched the mtime: %s, then %s", after.ModTime(), last.ModTime())
	}
}

func TestNoRoomWaitsForSpace(t *testing.T) {
	var sw errorfs.Switch
	h, b := committedFile(t, &sw, "f", "old")
	b.change = func(c *Config) {}
	sw.Set(errorfs.Always(errorfs.WFileWrite, fmt.Errorf("write: %w", unix.ENOSPC)))
	h.put(t, "f", "new")
	b.until("no room is told", func() bool {
		st, err := b.s.Status(ctxOf(t))
		return err == nil && st.Loop.Applied < st.Loop.Revision && st.Loop.Following+st.Loop.Looking > 0
	})
	if got := b.read("f"); got != "old" {
		t.Errorf("the tree has %q", got)
	}
	sw.Set(nil)
	b.has("f", "new")
	stagedEmpty(t, b)
}

func TestKindChanges(t *testing.T) {
	h := newHub()
	a, b := newBox(t, h, "a").start(), newBox(t, h, "b").start()
	a.write("x", "file")
	b.has("x", "file")
	must(t, os.Remove(a.path("x")))
	a.write("x/inner", "dir now")
	b.has("x/inner", "dir now")
	a.remove("x")
	must(t, os.Symlink("y", a.path("x")))
	b.until("x is a symlink", func() bool { l, _ := os.Readlink(b.path("x")); return l == "y" })
	must(t, os.Remove(a.path("x")))
	a.write("x", "file again")
	b.has("x", "file again")
}

func TestWithoutExchangeAndWithoutLeases(t *testing.T) {
	weak := errorfs.Func(func(op, _ string) error {
		switch op {
		case "Exchange":
			return vfs.ErrNoExchange
		case errorfs.FileLease:
			return vfs.ErrNoLease
		}
		return nil
	})
	h, b := committedFile(t, weak, "f", "old")
	h.put(t, "f", "new")
	b.has("f", "new")
	b.write("g", "mine")
	h.committed(t, "g", "mine")
	h.drop(t, "g")
	b.gone("g")
	stagedEmpty(t, b)
	if c := conflictsOf(t, b); len(c) != 0 {
		t.Errorf("conflicts: %+v", c)
	}
}

// An NFS client renames what is removed or replaced while somebody has it open,
// in the gateway's directory. So nothing is open, of those that we opened
// ourselves, when it is moved.
func TestNothingIsOpenWhenItIsMovedOnNFS(t *testing.T) {
	var open, moved atomic.Int64
	weak := errorfs.Func(func(op, p string) error {
		switch op {
		case "Open":
			open.Add(1)
		case errorfs.FileClose:
			open.Add(-1)
		case "TakeOut", "Replace":
			moved.Add(1)
			if n := open.Load(); n > 0 {
				t.Errorf("%s of %s while %d files are open", op, p, n)
			}
		case "Exchange":
			return vfs.ErrNoExchange
		case errorfs.FileLease:
			return vfs.ErrNoLease
		}
		return nil
	})
	h, b := committedFile(t, weak, "f", "old")
	b.settle()
	h.put(t, "f", "new")
	b.has("f", "new")
	b.settle()
	h.drop(t, "f")
	b.gone("f")
	if n := moved.Load(); n < 2 {
		t.Errorf("%d moves", n)
	}
}

// What an NFS client keeps of a removed file is nobody's edit.
func TestSillyRenamedFilesAreNotReplicated(t *testing.T) {
	h, b := committedFile(t, nil, "d/f", "x")
	b.write("d/.nfs000000000000806600000026", "removed, and still open")
	must(t, b.s.Rescan(ctxOf(t)))
	b.settle()
	if !h.tree.Entry("d/.nfs000000000000806600000026").Absent() {
		t.Error("it was proposed")
	}
	h.drop(t, "d/f")
	h.drop(t, "d")
	b.gone("d/f")
	b.remove("d/.nfs000000000000806600000026")
	b.gone("d") // nothing is left behind once it has gone
}

func TestOpenWriterIsNeverReplicated(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b").start()
	b.settle()
	must(t, os.MkdirAll(filepath.Dir(b.path("f")), 0o755))
	w, err := os.Create(b.path("f"))
	must(t, err)
	_, err = w.WriteString("half")
	must(t, err)
	b.write("other", "done") // overtakes it
	h.committed(t, "other", "done")
	h.mu.Lock()
	half := h.tree.Entry("f")
	h.mu.Unlock()
	if !half.Absent() {
		t.Fatalf("a file that is being written was committed: %v", half)
	}
	_, err = w.WriteString(" and whole")
	must(t, errors.Join(err, w.Close()))
	h.committed(t, "f", "half and whole")
	for _, c := range h.commits {
		for _, ch := range c.Changes {
			if ch.Path == "f" && ch.New.Digest != manifest.DigestOf([]byte("half and whole")) {
				t.Errorf("revision %d has %v", c.Revision, ch.New)
			}
		}
	}
}

// otherTimes is a file system that tells other times of a file once it has another
// name, as an NFS client may.
type otherTimes struct{ vfs.FS }

func (o otherTimes) StatStaged(name string) (vfs.Stat, error) {
	st, err := o.FS.StatStaged(name)
	st.MTime++
	return st, err
}

// Where there are no leases a deletion goes on although the moved file looks
// different, as long as its content is what was expected; an edit is put back.
func TestTakenOutWithOtherTimes(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "a")
	b.inject = errorfs.Func(func(op, _ string) error {
		if op == errorfs.FileLease {
			return vfs.ErrNoLease
		}
		return nil
	})
	b.change = func(c *Config) {
		open := c.OpenRoot
		c.OpenRoot = func() (vfs.FS, error) {
			r, err := open()
			if err != nil {
				return nil, err
			}
			return otherTimes{r}, nil
		}
	}
	b.write("f", "text")
	b.start()
	h.committed(t, "f", "text")
	b.settle()
	h.drop(t, "f")
	b.settle() // it may be gone for moments, too, and be put back
	b.until("what came out is judged", func() bool { return b.s.quarantine.len() == 0 })
	st, err := b.s.Status(ctxOf(t))
	if got := b.tree(); err != nil || len(got) > 0 || len(st.Loop.Busy) > 0 {
		t.Errorf("%v stands there; busy %v, %v", got, st.Loop.Busy, err)
	}
	if list := conflictsOf(t, b); len(list) > 0 {
		t.Errorf("kept aside: %+v", list)
	}
}

// What a step did not expect is named, so that a person can tell what happens.
func TestWhatDiffersIsNamed(t *testing.T) {
	was := vfs.Stat{Kind: manifest.File, Ino: 1, Size: 2, MTime: 3, Mode: 0o644}
	is := vfs.Stat{Kind: manifest.File, Ino: 1, Size: 5, MTime: 4, Mode: 0o644}
	if got := differences(was, is); got != "size 5, was 2; mtime 4, was 3" || differences(was, was) != "" {
		t.Error(got)
	}
}
