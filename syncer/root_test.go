package syncer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

func (b *box) lost() bool {
	st, err := b.s.Status(ctxOf(b.t))
	return err == nil && st.Loop.RootLost != ""
}

func noDeletions(t *testing.T, h *hub) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.commits {
		for _, ch := range c.Changes {
			if ch.New.Absent() {
				t.Errorf("revision %d deletes %s", c.Revision, ch.Path)
			}
		}
	}
}

func TestRootMovedAwayAndBack(t *testing.T) {
	h, b := committedFile(t, nil, "d/f", "content")
	must(t, os.Rename(b.root, b.root+".away"))
	b.until("the root is lost", b.lost)
	h.put(t, "g", "meanwhile")
	must(t, os.Rename(b.root+".away", b.root))
	b.has("g", "meanwhile")
	b.settle()
	noDeletions(t, h)
}

func TestRootReplacedByAnEmptyDirectory(t *testing.T) {
	h, b := committedFile(t, nil, "d/f", "content")
	must(t, os.Rename(b.root, b.root+".away"))
	must(t, os.Mkdir(b.root, 0o755)) // what a missing mount leaves
	b.until("the root is lost", b.lost)
	// A copy of the old root with its marker is taken up, as what it is: another
	// directory. Once that was looked through, it is a root like any other.
	must(t, os.Rename(b.root, b.root+".empty")) // not removed: the daemon may be trying it out just now
	must(t, exec.Command("cp", "-a", b.root+".away", b.root+".copy").Run())
	must(t, os.Rename(b.root+".copy", b.root)) // whole: it is taken up as soon as it has a marker
	b.until("the root is back", func() bool { return !b.lost() })
	b.settle()
	b.write("d/new", "in the new root")
	h.committed(t, "d/new", "in the new root")
	noDeletions(t, h)
}

func TestEmptiedRootIsHeldUntilApproved(t *testing.T) {
	h, b := committedFile(t, nil, "d/f", "content")
	must(t, os.RemoveAll(b.path(manifest.MarkerDir))) // first: nothing that is missing before could be approved
	must(t, os.RemoveAll(b.path("d")))
	b.until("the root is lost", func() bool { _ = b.s.Rescan(ctxOf(t)); return b.lost() })
	b.s.Rule(Approve)
	b.has("d/f", "content") // the tree comes back: nothing that is missing was a deletion
	noDeletions(t, h)
}

func TestRootThatIsMissingAtOpen(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b")
	must(t, os.Remove(b.root))
	b.start()
	b.until("the root is lost", b.lost)
	must(t, os.Mkdir(b.root, 0o755))
	b.until("the root is found", func() bool { return !b.lost() })
	b.write("f", "x")
	h.committed(t, "f", "x")
}

func TestForeignRootIsRefused(t *testing.T) {
	h, b := committedFile(t, nil, "f", "x")
	b.halt()
	b.change = func(c *Config) { c.ClusterID = "c-other" }
	b.start()
	b.until("the root is refused", b.lost)
	b.write("g", "y")
	if err := b.s.Rescan(ctxOf(t)); !errors.Is(err, ErrRootLost) {
		t.Errorf("rescan: %v", err)
	}
	if !h.tree.Entry("g").Absent() {
		t.Error("proposed from a foreign root")
	}
}

func TestLostRecordsMakeAJoiner(t *testing.T) {
	h, b := committedFile(t, nil, "kept", "agreed")
	b.write("own", "local")
	h.committed(t, "own", "local")
	b.settle()
	b.halt()
	must(t, os.Remove(filepath.Join(b.dir, "t.db")))
	h.drop(t, "own")
	b.start()
	b.until("the file is held", func() bool {
		st, err := b.s.Status(ctxOf(t))
		return err == nil && st.Loop.Notes["own"].Guard == GuardJoiner && !st.Loop.Joiner
	})
	b.halt()
	b.start() // a restart remembers both
	b.settle()
	if got := b.read("own"); got != "local" {
		t.Errorf("own is %q", got)
	}
	if !h.tree.Entry("own").Absent() {
		t.Error("a joiner's file was proposed")
	}
	st, err := b.s.Status(ctxOf(t))
	must(t, err)
	if st.Loop.Joiner {
		t.Error("still a joiner after the restart")
	}
}

func TestUnfitThingsAreHeldAndHoldNobodyUp(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b").start()
	must(t, unix.Mkfifo(b.path("fifo"), 0o644))
	must(t, os.Symlink("/etc/passwd", b.path("absolute")))
	must(t, os.Symlink("../outside", b.path("out")))
	b.write("f", "x")
	h.committed(t, "f", "x")
	b.settle()
	st, err := b.s.Status(ctxOf(t))
	must(t, err)
	for _, p := range []manifest.Path{"fifo", "absolute", "out"} {
		if st.Loop.Notes[p].Guard != GuardUnfit {
			t.Errorf("%s: %+v", p, st.Loop.Notes[p])
		}
		if !h.tree.Entry(p).Absent() {
			t.Errorf("%s was committed", p)
		}
	}
}

// What no tree can hold because its path is too long is named, too, and so is
// nothing else of what is below it; it is not named any more once it has gone.
func TestPathsThatAreTooLong(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b")
	name, deep := strings.Repeat("x", 250), b.root
	for range manifest.MaxPath / len(name) {
		deep = filepath.Join(deep, name)
	}
	must(t, os.MkdirAll(deep, 0o755))
	must(t, os.Mkdir(filepath.Join(deep, name), 0o755))
	must(t, os.WriteFile(filepath.Join(deep, name, "f"), nil, 0o644))
	b.start()
	long := manifest.Path(strings.TrimPrefix(filepath.Join(deep, name), b.root+"/"))
	b.until("it is named", func() bool { return noted(t, b)[long].Guard == GuardUnfit })
	b.settle()
	if notes := noted(t, b); len(notes) != 1 {
		t.Errorf("%v", notes)
	}
	var held []string
	must(t, b.s.Differences(ctxOf(t), func(d Difference) error { held = append(held, d.What); return nil }))
	if len(held) != 1 || held[0] != "held" {
		t.Errorf("differences %q", held)
	}
	b.halt()
	must(t, os.RemoveAll(filepath.Join(deep, name)))
	b.start()
	b.until("nothing is named any more", func() bool { return len(noted(t, b)) == 0 })
}

// A directory that was taken out of the tree, so that its deletion is held, and
// brought back as it was: nothing tells of what stands in it, and nothing of it is
// held any more. Nor is what has gone while nobody looked.
func TestWhatIsHeldAndComesBackAsItWas(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b").start()
	for i := range 30 {
		b.write(fmt.Sprintf("app/d/f%d", i), fmt.Sprint(i))
	}
	must(t, unix.Mkfifo(b.path("fifo"), 0o644))
	h.committed(t, "app/d/f29", "29")
	b.settle()
	must(t, os.Rename(b.path("app"), b.root+".away"))
	b.until("the deletion is held", func() bool { return noted(t, b)["app/d/f29"].Guard == GuardMassDelete })
	b.settle()
	must(t, os.Rename(b.root+".away", b.path("app")))
	b.until("nothing but the FIFO is held", func() bool { return len(noted(t, b)) == 1 })
	b.halt()
	b.remove("fifo")
	b.start()
	b.until("nothing is held", func() bool { return len(noted(t, b)) == 0 })
	noDeletions(t, h)
}

// What is ignored from a restart on is held no more, as `gatesync held` advises.
func TestWhatIsIgnoredByNowIsNotHeld(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b").start()
	must(t, unix.Mkfifo(b.path("fifo"), 0o644))
	must(t, unix.Mkfifo(b.path("other"), 0o644))
	b.until("both are held", func() bool { return len(noted(t, b)) == 2 })
	b.halt()
	b.change = func(c *Config) {
		ignore, err := manifest.NewIgnore("", []string{"fif*"})
		must(t, err)
		c.Ignore = ignore
	}
	b.start()
	b.settle()
	if notes := noted(t, b); len(notes) != 1 || notes["other"].Guard != GuardUnfit {
		t.Errorf("held: %v", notes)
	}
}

func noted(t *testing.T, b *box) map[manifest.Path]Note {
	t.Helper()
	st, err := b.s.Status(ctxOf(t))
	must(t, err)
	return st.Loop.Notes
}

func TestHangingDiskDoesNotBlockStatus(t *testing.T) {
	hang := errorfs.Hang("ReadDir")
	defer hang.Release()
	h := newHub()
	b := newBox(t, h, "b")
	b.inject = hang
	b.start()
	<-hang.Entered()
	if _, err := b.s.Status(ctxOf(t)); err != nil {
		t.Error(err)
	}
	hang.Release()
	b.settle()
}
