package syncer

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/sealed"
	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// failOnce fails the next call of an operation after it was armed.
func failOnce(op string, armed *atomic.Bool) errorfs.Injector {
	return errorfs.Func(func(o, _ string) error {
		if o == op && armed.CompareAndSwap(true, false) {
			return errors.New("EIO")
		}
		return nil
	})
}

// failing is a record file whose transactions fail once after it was armed.
type failing struct {
	database
	armed atomic.Bool
}

func (f *failing) Update(fn func(*sealed.Tx) error) error {
	if f.armed.CompareAndSwap(true, false) {
		return errors.New("EIO")
	}
	return f.database.Update(fn)
}

// A root that was taken as it is stays so, whatever fails behind its new marker:
// what is missing in it was deleted by nobody.
func TestPromise_NoSurpriseDelete_NewMarkerThenAFailure(t *testing.T) {
	var armed atomic.Bool
	bad := &failing{}
	for what, arm := range map[string]*atomic.Bool{"the staging directory": &armed, "the records": &bad.armed} {
		t.Run(what, func(t *testing.T) {
			h := newHub()
			b := newBox(t, h, "b")
			b.inject = failOnce("ListStaged", &armed)
			b.startWith(func(s *Syncer) { bad.database, s.rec.db = s.rec.db, bad })
			for _, f := range []string{"f0", "f1", "f2"} {
				b.write(f, "v")
				h.committed(t, f, "v")
			}
			b.settle()
			must(t, os.RemoveAll(b.path(manifest.MarkerDir)))
			must(t, os.Remove(b.path("f0")))
			b.until("the root is lost", func() bool { _ = b.s.Rescan(ctxOf(t)); return b.lost() })
			arm.Store(true)
			b.s.Rule(Approve)
			b.has("f0", "v") // it comes back
			if arm.Load() {
				t.Error("nothing failed: the test tests nothing")
			}
			b.settle()
			b.halt()
			b.start()
			b.settle()
			noDeletions(t, h)
		})
	}
}

// A process that dies between the new marker and the records finds by the marker
// alone that what they say is void.
func TestPromise_NoSurpriseDelete_NewMarkerThenACrash(t *testing.T) {
	h, b := committedFile(t, nil, "f", "v")
	b.write("g", "v")
	h.committed(t, "g", "v")
	b.settle()
	b.halt()
	must(t, os.Remove(b.path("f")))
	file := b.path(manifest.MarkerDir + "/marker.json")
	var m marker
	text, err := os.ReadFile(file)
	must(t, err)
	must(t, json.Unmarshal(text, &m))
	if m.Made == "" {
		t.Fatal("the marker has no name")
	}
	m.Made = "of the one that was made last"
	text, err = json.Marshal(m)
	must(t, err)
	must(t, os.WriteFile(file, text, 0o644))
	b.start()
	b.has("f", "v")
	b.settle()
	noDeletions(t, h)
}

// Where no new marker could be written nothing is forgotten: the old root, back
// again, is what it was.
func TestMarkerThatCannotBeWrittenForgetsNothing(t *testing.T) {
	var readOnly atomic.Bool
	h := newHub()
	b := newBox(t, h, "b")
	b.inject = errorfs.Func(func(op, _ string) error {
		if op == "WriteMarker" && readOnly.Load() {
			return os.ErrPermission
		}
		return nil
	})
	b.start()
	b.write("f", "v1")
	h.committed(t, "f", "v1")
	b.settle()
	readOnly.Store(true)
	must(t, os.Rename(b.root, b.root+".real"))
	must(t, os.Mkdir(b.root, 0o755))
	b.until("no marker", func() bool { _, bare := b.s.root.state(); return bare })
	b.s.Rule(Restore)
	b.until("it was tried", func() bool { lost, _ := b.s.root.state(); return lost != errNoMarker.Error() })
	must(t, os.RemoveAll(b.root))
	must(t, os.Rename(b.root+".real", b.root)) // mounted again
	b.until("the root is back", func() bool { return !b.lost() })
	b.settle()
	b.halt()
	b.write("f", "an honest edit")
	b.write("n", "an honest new file")
	b.start()
	h.committed(t, "f", "an honest edit")
	h.committed(t, "n", "an honest new file")
	if n := len(conflictsOf(t, b)); n > 0 {
		t.Errorf("%d conflicts", n)
	}
}

// The very first marker stands there, and the process dies before the records
// say so: it is still a new tree, whose files are offered.
func TestFirstMarkerThenACrash(t *testing.T) {
	var armed atomic.Bool
	h := newHub()
	b := newBox(t, h, "b")
	b.write("f", "of before the first start")
	b.inject = failOnce("ListStaged", &armed)
	armed.Store(true)
	must(t, b.open().Close()) // the marker was written, and no more
	if _, err := os.Stat(filepath.Join(b.root, manifest.MarkerDir, "marker.json")); err != nil || armed.Load() {
		t.Fatal("the first start did not get as far as it should:", err)
	}
	b.start()
	h.committed(t, "f", "of before the first start")
}

// What was seen in a root before it was lost says nothing about the one that
// was found since, however late it is said.
func TestLateWordOfALostRootIsVoid(t *testing.T) {
	hang := errorfs.Hang("ReadDir")
	defer hang.Release()
	_, b := committedFile(t, nil, "f", "v")
	find := b.s.root.finding()
	b.halt()
	b.inject = hang
	b.start()
	<-hang.Entered()
	b.s.inbox.post(Scanned{find: find + 7})
	b.s.inbox.post(Looked{find: find + 7, Observations: []Observation{{Path: "f", Sight: Gone}}})
	st, err := b.s.Status(ctxOf(t))
	must(t, err)
	if st.Loop.Scanned {
		t.Error("the scan of another root counts for this one")
	}
	hang.Release()
	b.settle()
	if b.read("f") != "v" {
		t.Error("f is", b.read("f"))
	}
}

// copyRoot puts a copy of the tree, marker and all, in the tree's place, as
// `cp -a` makes one, and changed before a daemon that runs can see it.
func (b *box) copyRoot(change func(root string)) {
	b.t.Helper()
	made := b.root + ".made"
	must(b.t, os.CopyFS(made, os.DirFS(b.root)))
	change(made)
	must(b.t, os.Rename(b.root, b.root+".real"))
	must(b.t, os.Rename(made, b.root))
}

// What is old or missing in a copy of the root was edited and deleted by
// nobody, whether the daemon was off or saw it come.
func TestPromise_NoSurpriseDelete_CopiedRoot(t *testing.T) {
	for _, off := range []bool{true, false} {
		t.Run(map[bool]string{true: "while it is off", false: "while it runs"}[off], func(t *testing.T) {
			h, b := committedFile(t, nil, "f", "new")
			b.write("g", "v")
			h.committed(t, "g", "v")
			b.settle()
			if off {
				b.halt()
			}
			b.copyRoot(func(root string) {
				must(t, os.WriteFile(filepath.Join(root, "f"), []byte("old"), 0o644))
				must(t, os.Remove(filepath.Join(root, "g")))
			})
			if off {
				b.start()
			} else {
				_ = b.s.Rescan(ctxOf(t))
			}
			b.has("g", "v")
			b.has("f", "new")
			oneConflict(t, b, "f", "old") // it went aside
			b.settle()
			noDeletions(t, h)
		})
	}
}

// A marker of an older version does not say where it was written. It learns it
// where it stands, and nothing is held for that.
func TestMarkerLearnsItsPlace(t *testing.T) {
	h, b := committedFile(t, nil, "f", "v1")
	b.settle()
	b.halt()
	file := b.path(manifest.MarkerDir + "/marker.json")
	var m marker
	text, err := os.ReadFile(file)
	must(t, err)
	must(t, json.Unmarshal(text, &m))
	if m.Place == (vfs.Place{}) {
		t.Fatal("a new marker does not say where it is")
	}
	at := m.Place
	m.Place = vfs.Place{}
	text, err = json.Marshal(m)
	must(t, err)
	must(t, os.WriteFile(file, text, 0o644))
	b.write("f", "v2") // while it is off
	b.start()
	h.committed(t, "f", "v2")
	text, err = os.ReadFile(file)
	must(t, err)
	must(t, json.Unmarshal(text, &m))
	if m.Place != at {
		t.Errorf("the marker says %+v, it is at %+v", m.Place, at)
	}
}

// A root that is lost again between its finding and the word of it (or found
// before the loop heard that it was lost): looks of before are never answered,
// so they begin anew.
func TestLooksThatWereUnderWayWhenTheRootWasFoundAnew(t *testing.T) {
	b := newBox(t, newHub(), "b")
	s := b.open()
	defer func() { must(t, s.Close()) }()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	find := s.found.find
	looks := func() (n int) { return len(s.lookers.few) }
	s.handle(t.Context(), RootBack{find: find}, timer)
	s.handle(t.Context(), Hinted{Paths: []manifest.Path{"f"}}, timer)
	if looks() != 1 {
		t.Fatalf("%d looks are asked for, want one", looks())
	}
	s.handle(t.Context(), RootBack{find: find + 1}, timer)
	s.handle(t.Context(), Looked{Observations: []Observation{{Path: "f", Sight: Gone}}, find: find}, timer)
	if looks() != 2 {
		t.Fatal("what was under way is never looked at again")
	}
	s.handle(t.Context(), Looked{Observations: []Observation{{Path: "f", Sight: Gone}}, find: find + 1}, timer)
	if w := s.loop.works.get("f"); w != nil && w.phase == looking {
		t.Fatal("the answer of this finding does not count")
	}
}

// What a scan finds in a directory that came about as a whole came with it, but
// not where another root stands by then.
func TestWhatCameAboutInAnotherRoot(t *testing.T) {
	b := newInbox()
	b.witness(nil, []manifest.Path{"d"})
	b.anotherRoot()
	b.hint("d/f")
	events, _ := b.take()
	if len(events) != 1 || events[0].(Hinted).Witnessed {
		t.Errorf("%+v", events)
	}
}
