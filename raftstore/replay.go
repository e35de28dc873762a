package raftstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// ErrNoLog: a directory holds no log.
var ErrNoLog = errors.New("there is no log")

// Replayed is what a log says that no daemon uses.
type Replayed struct {
	Machine  *Machine
	Snapshot uint64 // index of the snapshot that it began with, 0: none
	Last     uint64 // index of the last entry that was applied
	LastTerm uint64 // its term
	Term     uint64 // the newest that this node has taken part in
	End      uint64 // index of the last entry that there is
	Servers  []cluster.Member
	sequence uint64
	unusable error // why no snapshot could be used
}

// Tailing is an entry of the log behind the place that Replay was asked about.
type Tailing struct {
	Index   uint64
	Command *pb.Command // nil: not a command
	Outcome *pb.Outcome
}

// Exists tells whether a directory holds a log.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, logFile))
	return err == nil
}

// Replay applies the log in dir, which no daemon may be using, to a fresh
// machine: up to the entry upTo, 0 for all of them, committed or not (the
// commit index is not on disk). Entries behind mark are told to tail, which may
// be nil. Nothing in dir is changed. A log of a format that is not known here is
// a *NewerError.
//
// raft.RecoverCluster replays as well, but leaves the entries out that change
// the voters; our machine judges receipts by them.
func Replay(dir string, upTo, mark uint64, tail func(Tailing)) (r Replayed, err error) {
	if !Exists(dir) {
		return r, fmt.Errorf("%s: %w", dir, ErrNoLog)
	}
	disk, err := openReadOnly(dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	r.Machine = NewMachine()
	newer := uint32(0)
	f := &fsm{machine: r.Machine, moved: func() {}, ahead: func(n uint32) { newer = n }}
	if err := r.restore(dir, f); err != nil {
		return r, err
	}
	if r.Term, err = number(disk, "CurrentTerm"); err != nil {
		return r, err
	}
	if r.sequence, err = number(disk, string(seqKey)); err != nil {
		return r, err
	}
	r.Term = max(r.Term, r.LastTerm)
	err = r.apply(disk, f, upTo, mark, tail)
	if newer > 0 { // what comes behind that entry is not known here
		err = &NewerError{What: "the log in " + dir, Format: newer}
	}
	return r, err
}

func openReadOnly(dir string) (*disk, error) {
	disk, err := useDisk(filepath.Join(dir, logFile), true)
	if err != nil {
		return nil, fmt.Errorf("open the log in %s: %w", dir, promised(err))
	}
	return disk, nil
}

// snapshotsIn opens the snapshots of a log, nil where there are none.
func snapshotsIn(dir string) (*snapshots, error) {
	if _, err := os.Stat(filepath.Join(dir, snapshotDir)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	log := Config{}.withDefaults().Log
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, keepSnapshots, newRaftLogger(log))
	return &snapshots{SnapshotStore: files, dir: dir, log: log}, err
}

func number(disk *disk, key string) (uint64, error) {
	n, err := disk.GetUint64([]byte(key))
	if errors.Is(err, errKeyNotFound) {
		return 0, nil
	}
	return n, promised(err)
}

// restore loads the newest usable snapshot. What is in it is committed.
func (r *Replayed) restore(dir string, f *fsm) error {
	snapshots, err := snapshotsIn(dir)
	if err != nil || snapshots == nil {
		return err
	}
	return r.restoreFrom(snapshots, f)
}

func (r *Replayed) restoreFrom(snapshots *snapshots, f *fsm) error {
	names, err := snapshots.names()
	if err != nil {
		return fmt.Errorf("list the snapshots in %s: %w", snapshots.dir, err)
	}
	var errs []error
	for _, name := range names {
		meta, in, err := snapshots.openSurely(name)
		if err == nil {
			err = f.Restore(in)
		} else if !errors.Is(err, ErrSnapshot) {
			return fmt.Errorf("read the snapshots in %s: %w", snapshots.dir, err)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.Snapshot, r.Last, r.LastTerm = meta.Index, meta.Index, meta.Term
		r.configure(f, meta.Index, meta.Configuration)
		return nil
	}
	if len(errs) > 0 { // the log may still reach back to its beginning
		r.unusable = errors.Join(errs...)
	}
	return nil
}

func (r *Replayed) configure(f *fsm, index uint64, c raft.Configuration) {
	r.Servers = nil
	for _, s := range c.Servers {
		r.Servers = append(r.Servers, cluster.Member{ID: cluster.NodeID(s.ID), Role: roleOf(s.Suffrage)})
	}
	f.StoreConfiguration(index, c)
}

// apply applies the entries behind the snapshot.
func (r *Replayed) apply(disk *disk, f *fsm, upTo, mark uint64, tail func(Tailing)) error {
	end, err := disk.LastIndex()
	if err != nil {
		return fmt.Errorf("find the log's end: %w", err)
	}
	r.End = max(end, r.Last)
	first, _ := disk.ends()
	newest, err := number(disk, string(snapshotKey))
	if err != nil {
		return err
	}
	if first > r.Last+1 || r.End < newest {
		gap := fmt.Errorf("the log begins with entry %d and ends with %d, the newest usable snapshot is of entry %d, and there was one of %d", first, end, r.Last, newest)
		return &DamagedError{File: disk.file, Err: errors.Join(gap, r.unusable)}
	}
	if upTo != 0 {
		end = min(end, upTo)
	}
	for index := r.Last + 1; index <= end; index++ {
		var entry raft.Log
		if err := disk.GetLog(index, &entry); err != nil {
			return fmt.Errorf("read entry %d of the log: %w", index, promised(err))
		}
		t := Tailing{Index: index}
		switch entry.Type {
		case raft.LogCommand:
			t.Outcome, _ = f.Apply(&entry).(*pb.Outcome)
			t.Command = new(pb.Command)
			if proto.Unmarshal(entry.Data, t.Command) != nil {
				t.Command = nil
			}
		case raft.LogConfiguration:
			c, err := decodeConfiguration(entry.Data)
			if err != nil {
				return fmt.Errorf("entry %d of the log: %w", index, err)
			}
			r.configure(f, index, c)
		}
		r.Last, r.LastTerm = entry.Index, entry.Term
		if index > mark && tail != nil {
			tail(t)
		}
	}
	r.Term = max(r.Term, r.LastTerm)
	return nil
}

// decodeConfiguration is Raft's, which panics on what it cannot read.
func decodeConfiguration(b []byte) (c raft.Configuration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("no configuration: %v", p)
		}
	}()
	return raft.DecodeConfiguration(b), nil
}

// Extent tells how far the log in dir goes, which no daemon uses: the newest
// term that it knows, and the index of its last entry; zero where there is none.
func Extent(dir string) (term, last uint64, err error) {
	if !Exists(dir) {
		return 0, 0, nil
	}
	disk, err := openReadOnly(dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	if term, err = number(disk, "CurrentTerm"); err != nil {
		return 0, 0, err
	}
	if last, err = disk.LastIndex(); err != nil {
		return 0, 0, err
	}
	// Behind a snapshot the log may be empty.
	newest, err := number(disk, string(snapshotKey))
	return term, max(last, newest), err
}

// Extent tells how far this node's log goes: terms and entries behind which it
// will never fall back, and the index of its last entry.
func (s *Store) Extent() (term, applied, last uint64) {
	return s.raft.CurrentTerm(), s.fsm.applied.Load(), s.raft.LastIndex()
}

// Silence ends this node's part in Raft, until it is closed: the cluster goes
// on without it.
func (s *Store) Silence() { s.stream.fence(silenced) }
