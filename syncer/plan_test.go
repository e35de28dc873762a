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

// Another directory has taken the root's place: what is staged beside it is not
// what the plan was made for, and what the plan names is elsewhere.
func TestPromise_NoLoss_AnotherDirectoryInTheRootsPlace(t *testing.T) {
	_, b := committedFile(t, nil, "f", "old")
	b.halt()
	s := b.open()
	defer func() { must(t, s.Close()) }()
	away := planned{name: "away-1", path: "f"} // displaced, in the directory that is not there
	must(t, s.rec.db.Update(recordJob{plan: []planned{away}}.write))
	b.write("f", "an unseen edit")
	root, err := b.openRoot()
	must(t, err)
	defer root.Close()
	must(t, root.TakeOut("f", "deadbeef-1")) // of a plan that was given up
	must(t, s.recoverStaging(ctxOf(t), root, true))
	all, err := s.Conflicts()
	must(t, err)
	if len(all) != 1 || all[0].Path != "unknown-deadbeef-1" {
		t.Errorf("conflicts: %+v", all)
	}
	plan, err := s.rec.planned()
	must(t, err)
	if _, ok := plan["away-1"]; !ok {
		t.Error("the plan of what is in another directory was given up")
	}
}

// A step that is under way when the root is lost and found goes on: what it has
// staged is not taken for an earlier run's.
func TestPromise_NoLoss_RootFoundUnderAStep(t *testing.T) {
	for _, other := range []bool{false, true} {
		_, b := committedFile(t, nil, "f", "old")
		b.halt()
		s := b.open()
		defer func() { must(t, s.Close()) }()
		root, err := b.openRoot()
		must(t, err)
		defer root.Close()
		swapping, taking, fresh := s.stagedName(), s.stagedName(), s.stagedName()
		for _, name := range []string{swapping, fresh} {
			w, err := root.Create(name, 0o644)
			must(t, err)
			must(t, w.Close())
		}
		st, err := root.StatStaged(swapping)
		must(t, err)
		must(t, s.rec.db.Update(recordJob{plan: []planned{{name: swapping, path: "f", ino: st.Ino}, {name: taking, path: "g"}}}.write))
		must(t, s.recoverStaging(ctxOf(t), root, other))
		for _, name := range []string{swapping, fresh} {
			if _, err := root.StatStaged(name); err != nil {
				t.Errorf("another directory: %v: what was staged a moment ago: %v", other, err)
			}
		}
		plan, err := s.rec.planned()
		must(t, err)
		if len(plan) != 2 {
			t.Errorf("another directory: %v: the plan of steps that are under way has become %v", other, plan)
		}
		if c, err := s.Conflicts(); err != nil || len(c) != 0 {
			t.Errorf("another directory: %v: conflicts %+v %v", other, c, err)
		}
	}
}

// What was said about a root under another marker comes late: it is void.
func TestRecordsOfAnotherMarkerAreVoid(t *testing.T) {
	_, b := committedFile(t, nil, "f", "old")
	b.halt()
	s := b.open()
	defer func() { must(t, s.Close()) }()
	must(t, s.rooted(&rootFound{made: "new", fresh: true}))
	late := recordJob{
		marker: "old", joined: true, followed: 7, looked: true,
		updates: []Update{{Path: "f", Ancestor: &Ancestor{Revision: 1}}},
	}
	must(t, s.rec.db.Update(late.write))
	known, err := s.rec.load("boot-2")
	must(t, err)
	if st := known.state; st.Ancestors.Len() > 0 || !st.Joiner || st.Followed != 0 {
		t.Errorf("%d ancestors, joiner %v, followed %d", st.Ancestors.Len(), st.Joiner, st.Followed)
	}
	late.marker = "new"
	must(t, s.rec.db.Update(late.write))
	known, err = s.rec.load("boot-2")
	must(t, err)
	if st := known.state; st.Ancestors.Len() != 1 || st.Joiner || st.Followed != 7 {
		t.Errorf("%d ancestors, joiner %v, followed %d", st.Ancestors.Len(), st.Joiner, st.Followed)
	}
}
