package raftstore

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/sealed"
)

// TestTheLogsDiskKnowsItsEnds: whatever is appended and deleted, the file opens
// with the same ends, and a tail that is lost behind its back is damage.
func TestTheLogsDiskKnowsItsEnds(t *testing.T) {
	dir := t.TempDir()
	d, err := openDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	put := func(from, to uint64) error {
		var entries []*raft.Log
		for i := from; i <= to; i++ {
			entries = append(entries, &raft.Log{Index: i, Term: 1, Type: raft.LogCommand, Data: make([]byte, i%700), AppendedAt: time.Now()})
		}
		return d.StoreLogs(entries)
	}
	for _, step := range []struct {
		do          func() error
		first, last uint64
	}{
		{func() error { return put(1, 3000) }, 1, 3000},
		{func() error { return d.DeleteRange(1, 1733) }, 1734, 3000}, // behind a snapshot
		{func() error { return d.DeleteRange(2500, 3000) }, 1734, 2499},
		{func() error { return put(2500, 2600) }, 1734, 2600},
		{func() error { return put(5000, 5001) }, 5000, 5001}, // behind a snapshot of the leader
		{func() error { return d.DeleteRange(5000, 5001) }, 0, 0},
		{func() error { return put(7, 40) }, 7, 40},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if d, err = openDisk(dir); err != nil {
			t.Fatal(err)
		}
		if first, last := d.ends(); first != step.first || last != step.last {
			t.Fatalf("from %d to %d, not from %d to %d", first, last, step.first, step.last)
		}
	}
	// A crash amid a cut: it is finished.
	if err := errors.Join(d.bolt.StoreLog(end{last: 40, cutting: true, cut: 30}.entry()), d.Close()); err != nil {
		t.Fatal(err)
	}
	if d, err = openDisk(dir); err != nil {
		t.Fatal(err)
	}
	if first, last := d.ends(); first != 7 || last != 30 {
		t.Fatalf("from %d to %d after a crash", first, last)
	}
	if err := errors.Join(d.bolt.DeleteRange(30, 30), d.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err = useDisk(filepath.Join(dir, logFile), true); !errors.Is(err, sealed.ErrDamaged) {
		t.Fatalf("opened with a lost tail: %v", err)
	}
}

// TestTheLogIsCutWhileItGrows: Raft deletes behind a snapshot on another
// goroutine than the one that appends.
func TestTheLogIsCutWhileItGrows(t *testing.T) {
	d, err := openDisk(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const n = 200
	failed := make(chan error, 1)
	go func() {
		var err error
		for first := uint64(1); first < n && err == nil; {
			at, last := d.ends()
			if first = max(at, 1); last > first {
				err = d.DeleteRange(first, last-1)
			}
			if last == n {
				break
			}
		}
		failed <- err
	}()
	for i := uint64(1); i <= n; i++ {
		if err := d.StoreLog(&raft.Log{Index: i, Term: 1, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		var e raft.Log
		if err := d.GetLog(i, &e); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if first, last := d.ends(); last != n || first == 0 {
		t.Fatalf("from %d to %d", first, last)
	}
}
