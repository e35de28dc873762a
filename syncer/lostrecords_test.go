package syncer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

// damage flips bytes of the record file in many places.
func (b *box) damage() {
	b.t.Helper()
	file := filepath.Join(b.dir, "t.db")
	whole, err := os.ReadFile(file)
	must(b.t, err)
	rnd := rand.New(rand.NewPCG(1, 2))
	for page := 0; page < len(whole); page += os.Getpagesize() {
		whole[page+rnd.IntN(80)] ^= 1
	}
	must(b.t, os.WriteFile(file, whole, 0o600))
}

func (b *box) heldPaths() (paths []string) {
	b.t.Helper()
	st, err := b.s.Status(ctxOf(b.t))
	must(b.t, err)
	for p, n := range st.Loop.Notes {
		paths = append(paths, fmt.Sprintf("%s:%s", n.Guard, p))
	}
	slices.Sort(paths)
	return paths
}

// TestPromise_NoSurpriseDelete_DamagedRecords: with its records damaged, a node
// neither proposes nor overwrites what differs, and brings nothing back.
func TestPromise_NoSurpriseDelete_DamagedRecords(t *testing.T) {
	for _, verb := range []Verb{Approve, Restore} {
		t.Run(fmt.Sprint(verb), func(t *testing.T) {
			h := newHub()
			b := newBox(t, h, "b").start()
			for _, f := range []string{"same", "edited", "removed here", "changed elsewhere", "removed elsewhere"} {
				b.write(f, "old "+f)
			}
			for _, f := range []string{"same", "edited", "removed here", "changed elsewhere", "removed elsewhere"} {
				h.committed(t, f, "old "+f)
			}
			b.settle()
			b.halt()
			b.write("edited", "by hand")
			must(t, os.Remove(b.path("removed here")))
			b.write("new", "by hand")
			h.put(t, "changed elsewhere", "newer")
			h.drop(t, "removed elsewhere")
			before := h.revision()
			b.damage()
			b.start()
			want := []string{"records:changed elsewhere", "records:edited", "records:new", "records:removed elsewhere"}
			b.until("what differs is held", func() bool { return slices.Equal(b.heldPaths(), want) })
			b.settle()
			b.has("edited", "by hand")
			b.has("changed elsewhere", "old changed elsewhere")
			b.has("removed here", "old removed here") // nothing is deleted on such evidence
			if h.revision() != before {
				t.Fatalf("%d revisions came of damaged records", h.revision()-before)
			}
			st, err := b.s.Status(ctxOf(t))
			must(t, err)
			if !strings.Contains(fmt.Sprint(st.Warnings), "t.db"+damagedMark) {
				t.Errorf("status does not name the damaged file: %q", st.Warnings)
			}

			// It is still held after a restart, and whatever the log says.
			b.halt()
			h.put(t, "edited", "by others")
			b.start()
			b.until("it is still held", func() bool { return slices.Equal(b.heldPaths(), want) })
			b.settle()
			b.has("edited", "by hand")

			b.s.Rule(verb)
			b.until("nothing is held", func() bool { return len(b.heldPaths()) == 0 })
			b.settle()
			if verb == Approve {
				h.committed(t, "edited", "by hand")
				h.committed(t, "new", "by hand")
				h.committed(t, "changed elsewhere", "old changed elsewhere")
			} else {
				b.has("edited", "by others")
				b.has("changed elsewhere", "newer")
				b.gone("new")
				if n := len(conflictsOf(t, b)); n != 4 {
					t.Errorf("%d contents were kept aside, want 4", n)
				}
			}
		})
	}
}

// TestPromise_Converge_DamagedRecordsWaitForTheLog: a log that is still replayed
// shows what is long gone; without records nothing is done until it was read.
func TestPromise_Converge_DamagedRecordsWaitForTheLog(t *testing.T) {
	h, b := committedFile(t, nil, "f", "old")
	h.put(t, "gone", "gone")
	b.until("it is there", func() bool { return b.read("gone") == "gone" })
	b.settle()
	b.halt()
	must(t, os.Remove(b.path("gone")))
	b.damage()
	b.node.late.Store(true)
	b.start()
	b.until("the disk was read", func() bool {
		st, err := b.s.Status(ctxOf(t))
		must(t, err)
		return st.Loop.Scanned
	})
	b.gone("gone")
	h.drop(t, "gone") // what the log says at its end
	h.put(t, "f", "newer")
	b.node.late.Store(false)
	h.replayed(0) // tells that it has been read: all at once, or "old" would be agreed on before
	want := []string{"records:f"}
	b.until("what differs is held", func() bool { return slices.Equal(b.heldPaths(), want) })
	b.settle()
	b.gone("gone")
	b.has("f", "old")
}

// TestPromise_NoLoss_ConflictsOfDamagedRecords: what was kept aside is found in
// the damaged file.
func TestPromise_NoLoss_ConflictsOfDamagedRecords(t *testing.T) {
	h, b := committedFile(t, nil, "f", "old")
	b.halt()
	b.write("f", "lost edit")
	h.put(t, "f", "winner")
	b.start()
	oneConflict(t, b, "f", "lost edit")
	b.settle()
	b.halt()
	b.damage()
	b.start()
	oneConflict(t, b, "f", "lost edit")
	b.settle()
	b.has("f", "winner")
}

// TestEveryFlipOfTheRecordsIsHarmless opens records with a byte flipped, or
// cut, in many places: they say what they said, or nothing.
func TestEveryFlipOfTheRecordsIsHarmless(t *testing.T) {
	_, b := committedFile(t, nil, "f", "old")
	b.halt()
	file := filepath.Join(b.dir, "t.db")
	whole, err := os.ReadFile(file)
	must(t, err)
	rnd := rand.New(rand.NewPCG(3, 4))
	replaced, places := 0, 80
	if os.Getenv("GATESYNC_LONG") != "" {
		places = 400
	}
	for i := range places {
		damaged := slices.Clone(whole)
		at := rnd.IntN(len(damaged))
		if i%10 == 0 {
			damaged = damaged[:at]
		} else {
			damaged[at] ^= byte(1 << rnd.IntN(8))
		}
		must(t, os.WriteFile(file, damaged, 0o600))
		s, err := Open(b.cfg)
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		known, err := s.rec.load("")
		must(t, err)
		_, knows := known.state.Ancestors.Get(manifest.Path("f"))
		aside := s.setAside()
		if lost := len(aside) > 0; lost == knows || lost != known.state.Lost {
			t.Fatalf("byte %d: known %v, set aside %q, lost %v", at, knows, aside, known.state.Lost)
		}
		must(t, s.Close())
		for _, f := range aside {
			replaced++
			must(t, os.Remove(f))
		}
	}
	if replaced == 0 {
		t.Error("no flip was noticed")
	}
}
