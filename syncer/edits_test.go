package syncer

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

// A tree that takes no edits, with a real disk: nothing is proposed, what is
// committed comes back, and what was edited is to be had.
func TestPromise_NoLoss_EditsRepaired(t *testing.T) {
	h := newHub()
	a, b := newBox(t, h, "a").start(), newBox(t, h, "b")
	b.change = func(c *Config) { c.Loop.Edits = manifest.EditsRepaired }
	b.start()
	a.write("f", "first")
	a.write("d/x", "below")
	b.until("both stand", func() bool { return b.read("f") == "first" && b.read("d/x") == "below" })
	b.settle()
	before := h.wrote()
	b.write("f", "edited")
	// At once: a directory that is empty for a moment is put right in that moment.
	moved := t.TempDir() + "/n"
	must(t, os.Mkdir(moved, 0o755))
	must(t, os.WriteFile(moved+"/y", []byte("local"), 0o644))
	must(t, os.Rename(moved, b.path("n")))
	b.remove("d")
	b.until("it is as committed", func() bool {
		return b.read("f") == "first" && b.read("d/x") == "below" && b.tree()["n"] == "" && b.tree()["n/y"] == ""
	})
	b.settle()
	if now := h.wrote(); now != before {
		t.Errorf("%d revisions were proposed", now-before)
	}
	kept := map[manifest.Path]string{}
	for _, c := range conflictsOf(t, b) {
		kept[c.Path] = contentOf(t, b, c.ID)
		if err := b.s.RestoreConflict(ctxOf(t), c.ID); err == nil || !strings.Contains(err.Error(), "write: never") {
			t.Errorf("what is kept aside of %q was put back into a tree that takes no edits: %v", c.Path, err)
		}
	}
	if kept["f"] != "edited" || kept["n/y"] != "local" {
		t.Errorf("kept aside is %v", kept)
	}
	if st, err := b.s.Status(ctxOf(t)); err != nil || st.Loop.Repaired < 4 || st.Loop.EditedAll != 0 {
		t.Errorf("%d repaired, %d stand edited, %v", st.Loop.Repaired, st.Loop.EditedAll, err)
	}
}

// The same where edits are only reported, and after the tree takes edits again:
// what stood edited stands, also what was edited while nobody looked.
func TestPromise_Converge_EditsReportedThenTaken(t *testing.T) {
	h := newHub()
	a, b := newBox(t, h, "a").start(), newBox(t, h, "b")
	edits := manifest.EditsReported
	b.change = func(c *Config) { c.Loop.Edits = edits }
	b.start()
	for _, p := range []string{"f", "g", "unseen"} {
		a.write(p, "first")
		b.has(p, "first")
	}
	b.settle()
	before := h.wrote()
	b.write("f", "edited")
	b.write("new", "local")
	b.remove("g")
	edited := func() (paths []manifest.Path) {
		st, err := b.s.Status(ctxOf(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range st.Loop.Edited {
			paths = append(paths, e.Path)
		}
		return paths
	}
	want := []manifest.Path{"f", "g", "new"}
	b.until("three edits stand and are shown", func() bool { return slices.Equal(edited(), want) })
	b.settle()
	b.halt()
	b.write("unseen", "edited while the daemon was down")
	b.write("unseen2", "made while the daemon was down")
	edits = manifest.EditsOffered
	b.start()
	want = append(want, "unseen", "unseen2")
	b.until("all of it stands and is shown", func() bool { return slices.Equal(edited(), want) })
	b.write("now", "of today")
	h.await(t, "what is written now", func(m *manifest.Manifest) bool { return !m.Entry("now").Absent() })
	b.settle()
	if now := h.wrote(); now != before+1 {
		t.Errorf("%d revisions were proposed, want that of today", now-before)
	}
	b.halt()
	b.start() // it does not begin anew, nor does it forget
	b.until("all of it stands still", func() bool { return slices.Equal(edited(), want) })
	b.s.Rule(Approve, "unseen", "g")
	h.committed(t, "unseen", "edited while the daemon was down")
	h.await(t, "the approved deletion", func(m *manifest.Manifest) bool { return m.Entry("g").Absent() })
	b.s.Rule(Restore)
	b.until("nothing stands edited", func() bool { return len(edited()) == 0 })
	b.has("f", "first")
	b.gone("new")
	if n := len(conflictsOf(t, b)); n != 3 {
		t.Errorf("%d are kept aside, want f, new and unseen2", n)
	}
}

// In a directory that other nodes have too it cannot be kept: the node leaves the
// tree alone, is nobody's steward, and says why.
func TestEditsOfASharedTreeAreRefused(t *testing.T) {
	m := moor(t)
	m.b.halt()
	was := m.b.change
	m.b.change = func(c *Config) { was(c); c.Loop.Edits = manifest.EditsRepaired }
	m.b.start()
	m.b.until("it says why", func() bool {
		st, err := m.b.s.Status(ctxOf(t))
		return err == nil && st.Place.Unknown && strings.Contains(st.Place.Why, "write: never")
	})
	if m.b.s.Steady() {
		t.Error("it could be named the steward")
	}
	m.b.write("f", "by whoever works there")
	m.c.until("the other node proposes it", func() bool { return m.c.read("f") == "by whoever works there" })
	if m.b.read("f") != "by whoever works there" || m.writes["b"].Load() != 0 {
		t.Error("the node has touched the shared tree")
	}
}
