package syncer

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/sealed"
	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

func drawEntry(t *rapid.T) manifest.Entry {
	e := manifest.Entry{
		Kind: manifest.Kind(rapid.IntRange(1, 3).Draw(t, "kind")), Mode: rapid.Uint32Range(0, 0o777).Draw(t, "mode"),
		Size: rapid.Int64().Draw(t, "size"), MTime: rapid.Int64().Draw(t, "mtime"), Target: rapid.String().Draw(t, "target"),
	}
	copy(e.Digest[:], rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, "digest"))
	return e
}

func drawAncestor(t *rapid.T) Ancestor {
	return Ancestor{
		Entry: drawEntry(t), Revision: manifest.Revision(rapid.Uint64().Draw(t, "revision")), Author: rapid.String().Draw(t, "author"),
		Stamp: Stamp{
			Ino: rapid.Uint64().Draw(t, "ino"), Size: rapid.Int64().Draw(t, "ssize"), MTime: rapid.Int64().Draw(t, "smtime"),
			CTime: rapid.Int64().Draw(t, "ctime"), Racy: rapid.Bool().Draw(t, "racy"),
		},
	}
}

func TestCodecReadsWhatItWrote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAncestor(t)
		if got, err := decodeAncestor(encodeAncestor(a)); err != nil || got != a {
			t.Fatalf("%+v became %+v (%v)", a, got, err)
		}
		p := planned{name: "n", path: manifest.Path(rapid.String().Draw(t, "path")), ino: 7, expect: a, winner: 9}
		if got, err := decodePlanned("n", encodePlanned(p)); err != nil || got != p {
			t.Fatalf("%+v became %+v (%v)", p, got, err)
		}
		n := Note{Guard: GuardLeft, Why: rapid.String().Draw(t, "why"), Time: 3, Entry: a.Entry, Base: 4}
		if got, err := decodeNote(encodeNote(n)); err != nil || got != n {
			t.Fatalf("%+v became %+v (%v)", n, got, err)
		}
		c := Conflict{ID: "x", Path: p.path, Lost: a.Entry, Winner: 5, Time: 6, Why: n.Why}
		if got, err := decodeConflict("x", encodeConflict(c)); err != nil || got != c {
			t.Fatalf("%+v became %+v (%v)", c, got, err)
		}
	})
}

func TestCodecRefusesDamage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := encodeAncestor(drawAncestor(t))
		cut := whole[:rapid.IntRange(0, len(whole)-1).Draw(t, "cut")]
		if a, err := decodeAncestor(cut); err == nil {
			t.Fatalf("%d of %d bytes were taken for %+v", len(cut), len(whole), a)
		}
		_, _ = decodeAncestor(rapid.SliceOf(rapid.Byte()).Draw(t, "noise")) // must not panic
	})
}

// TestPersisterKeepsTheOrderOfAPath: a large file that is flushed beside the
// queue must not overwrite what was recorded about its path later.
func TestPersisterKeepsTheOrderOfAPath(t *testing.T) {
	dir := t.TempDir()
	rec, err := openRecords(filepath.Join(dir, "t.db"))
	must(t, err)
	defer rec.close()
	must(t, os.MkdirAll(filepath.Join(dir, "root"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "root", "big"), []byte("x"), 0o644))
	hang := errorfs.Hang("SyncFile")
	defer hang.Release()
	root := newRootKeeper(func() (vfs.FS, error) {
		r, err := vfs.OpenRoot(filepath.Join(dir, "root"), vfs.Options{})
		if err != nil {
			return nil, err
		}
		return errorfs.Wrap(r, hang), nil
	}, marker{Format: 1}, slog.New(slog.DiscardHandler))
	_, err = root.find(context.Background(), true, false, nil)
	must(t, err)
	defer root.close()
	p := newPersister(rec, root, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); p.run(ctx) }()

	old := Ancestor{Entry: manifest.Entry{Kind: manifest.File, Size: bigFile}, Revision: 1}
	younger := Ancestor{Entry: manifest.Entry{Kind: manifest.File, Size: 3}, Revision: 2}
	p.add(recordJob{updates: []Update{{Path: "big", Ancestor: &old, Flush: true}}})
	<-hang.Entered()
	written := make(chan error, 1)
	p.add(recordJob{updates: []Update{{Path: "big", Ancestor: &younger}}, done: func(err error) { written <- err }})
	must(t, <-written) // although the flush of the large one still hangs
	hang.Release()
	p.slow.Wait()
	cancel()
	<-ended
	known, err := rec.load("")
	must(t, err)
	if got, _ := known.state.Ancestors.Get("big"); !reflect.DeepEqual(got, younger) {
		t.Errorf("recorded %+v", got)
	}
}

// A record file of a newer version is no damage: nobody is told to move it away.
func TestRecordsOfANewerVersionAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t.db")
	rec, err := openRecords(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rec.setMeta(map[string][]byte{metaFormat: []byte("2")}), rec.close()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var newer *NewerRecordsError
	if _, err := openRecords(file); !errors.As(err, &newer) || errors.Is(err, sealed.ErrDamaged) {
		t.Fatalf("opened: %v", err)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed, %v", err)
	}
}

// What a joiner was compared with first stays as it was said first, under its own
// marker, until it is no joiner any more.
func TestRecordsRememberWhatAJoinerBeganWith(t *testing.T) {
	_, b := committedFile(t, nil, "f", "old")
	b.halt()
	s := b.open()
	defer func() { must(t, s.Close()) }()
	must(t, s.rooted(&rootFound{made: "new", fresh: true}))
	say := func(j recordJob) State {
		must(t, s.rec.db.Update(j.write))
		known, err := s.rec.load("boot-2")
		must(t, err)
		return known.state
	}
	two, three := manifest.Revision(2), manifest.Revision(3)
	if st := say(recordJob{marker: "old", begun: &two}); st.Begun {
		t.Errorf("of another marker: %+v", st)
	}
	if st := say(recordJob{marker: "new", begun: &two}); !st.Begun || st.Followed != 2 {
		t.Errorf("it has begun at 2: %+v", st)
	}
	if st := say(recordJob{marker: "new", begun: &three}); st.Followed != 2 {
		t.Errorf("it has begun before: %+v", st)
	}
	if st := say(recordJob{marker: "new", joined: true}); st.Begun || st.Joiner || st.Followed != 2 {
		t.Errorf("no joiner any more: %+v", st)
	}
	if st := say(recordJob{marker: "new", begun: &three}); st.Begun {
		t.Errorf("said late: %+v", st)
	}
	must(t, s.rooted(&rootFound{made: "newer", fresh: true}))
	if st := say(recordJob{}); st.Begun || st.Followed != 0 || !st.Joiner {
		t.Errorf("a root of another marker: %+v", st)
	}
}

// What says that all of a boot's disk was looked at comes with Follow alone;
// how far a plan had begun is never taken back.
func TestRecordsRememberBootAndReach(t *testing.T) {
	r, err := openRecords(filepath.Join(t.TempDir(), "records"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	p := newPersister(r, nil, slog.New(slog.DiscardHandler))
	load := func(boot string) State {
		out, err := r.load(boot)
		if err != nil {
			t.Fatal(err)
		}
		return out.state
	}
	persist := func(j recordJob) {
		if err := p.commit(context.Background(), []recordJob{j}); err != nil {
			t.Fatal(err)
		}
	}
	if st := load("one"); !st.SameBoot {
		t.Errorf("of a new file: %+v", st)
	}
	persist(recordJob{followed: 3, looked: true, reached: 7})
	if st := load("one"); !st.SameBoot || st.Floor() != 7 {
		t.Errorf("after Follow: %+v", st)
	}
	load("two") // the machine has lost power, and the daemon dies before all is quiet
	persist(recordJob{reached: 5})
	if st := load("two"); st.SameBoot || st.Reached != 7 {
		t.Errorf("nobody has looked since the power cut: %+v", st)
	}
	persist(recordJob{followed: 4, looked: true})
	if st := load("two"); !st.SameBoot || st.Followed != 4 {
		t.Errorf("all was looked at: %+v", st)
	}
}
