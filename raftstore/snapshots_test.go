package raftstore

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// refusingSnapshots cannot open what it has, for a number of times.
type refusingSnapshots struct {
	raft.SnapshotStore
	err   error
	times int
}

func (r *refusingSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if r.times--; r.times >= 0 {
		return nil, nil, &os.PathError{Op: "open", Path: id, Err: r.err}
	}
	return r.SnapshotStore.Open(id)
}

// A snapshot that cannot be read now is not damaged, and is not set aside; what
// the disk refuses again and again is.
func TestASnapshotThatCannotBeReadIsNotDamaged(t *testing.T) {
	_, dir := past(t)
	kept, err := snapshotsIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	names, err := kept.names()
	if err != nil || len(names) != keepSnapshots {
		t.Fatalf("snapshots %q, %v", names, err)
	}
	renewed := 0
	kept.renew = func() { renewed++ }
	inner := kept.SnapshotStore
	for _, c := range []struct {
		err     error
		times   int
		refused bool // the start
		damaged int
		renewed int
	}{
		{err: unix.EMFILE, times: 9, refused: true},
		{err: unix.EACCES, times: 9, refused: true},
		{err: unix.ENOSPC, times: 9, refused: true},
		{err: unix.EIO, times: 1, renewed: 1},
		{err: unix.EIO, times: 3, damaged: 1, renewed: 1}, // the last: it moves a snapshot away
	} {
		kept.SnapshotStore, renewed = &refusingSnapshots{inner, c.err, 1}, 0
		if _, _, err := kept.Open(names[0]); !errors.Is(err, c.err) || errors.Is(err, ErrSnapshot) || renewed != c.renewed {
			t.Errorf("%v while it runs: %v, renewed %d times", c.err, err, renewed)
		}
		kept.SnapshotStore = &refusingSnapshots{inner, c.err, c.times}
		_, damaged, err := kept.inspect()
		if (err != nil) != c.refused || len(damaged) != c.damaged {
			t.Errorf("%v at a start: damaged %q, %v", c.err, damaged, err)
		}
		if _, err := os.Stat(filepath.Join(dir, damagedDir)); (err == nil) != (c.damaged > 0) {
			t.Errorf("%v: set aside: %v", c.err, err)
		}
		if c.refused {
			kept.SnapshotStore = &refusingSnapshots{inner, c.err, 1}
			fsm := &fsm{machine: NewMachine(), moved: func() {}}
			if err := new(Replayed).restoreFrom(kept, fsm); !errors.Is(err, c.err) {
				t.Errorf("%v: a replay goes on: %v", c.err, err)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, damagedDir, names[0])); err != nil {
		t.Errorf("not the newest was asked for three times: %v", err)
	}
}

// What a crash left of a snapshot is cleared away at the next start.
func TestUnfinishedSnapshotsAreCleared(t *testing.T) {
	c, dir := past(t)
	left := filepath.Join(dir, snapshotDir, "9-9-9"+tmpSuffix)
	c.must(os.Mkdir(left, 0o700))
	c.must(os.WriteFile(filepath.Join(left, "state.bin"), []byte("half"), 0o600))
	c.close(c.open("n-1"))
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// Snapshots are as old as their numbers say, not as their names sort.
func TestSnapshotsAreOrderedByNumber(t *testing.T) {
	dir := t.TempDir()
	want := []string{"10-20-1", "9-100-3", "9-99-4", "9-9-10", "9-9-9", "other"}
	for _, name := range []string{"9-9-9", "9-100-3", "other", "10-20-1", "9-9-10", "9-99-4", "11-1-1" + tmpSuffix} {
		if err := os.MkdirAll(filepath.Join(dir, snapshotDir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	names, err := (&snapshots{dir: dir}).names()
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("%q, want %q (%v)", names, want, err)
	}
}
