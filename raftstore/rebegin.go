package raftstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/vfs"
)

// Rebegin writes a new log in dir, which must not exist: its first word is a
// snapshot of the machine at the replayed place, its only voter is self. The
// machine has begun its new incarnation before.
func (r Replayed) Rebegin(dir string, self cluster.NodeID) (err error) {
	if r.Machine.Incarnation() <= cluster.FirstIncarnation {
		return errors.New("a log is begun anew for a new incarnation only")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("begin the log anew: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("begin the log anew: %w", err), os.RemoveAll(dir))
		}
	}()
	disk, err := openDisk(dir)
	if err != nil {
		return err
	}
	err = r.writeNumbers(disk)
	if err = errors.Join(err, disk.Close()); err != nil {
		return err
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, keepSnapshots, newRaftLogger(Config{}.withDefaults().Log))
	if err != nil {
		return err
	}
	made := func(uint64) error { return nil } // writeNumbers has noted it
	kept := &snapshots{SnapshotStore: files, dir: dir, made: made}
	voter := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(self), Address: raft.ServerAddress(self),
	}}}
	_, encoder := raft.NewInmemTransport(raft.ServerAddress(self)) // an old field of snapshots wants one
	sink, err := kept.Create(raft.SnapshotVersionMax, r.Last, r.LastTerm, voter, 1, encoder)
	if err != nil {
		return err
	}
	snapshot := fsmSnapshot{index: r.Last, frozen: r.Machine.Freeze()}
	if err := snapshot.Persist(sink); err != nil {
		return err
	}
	// Beside the log: a start has to know before Raft runs.
	name := filepath.Join(dir, incarnationFile)
	if err := os.WriteFile(name, fmt.Appendln(nil, uint64(r.Machine.Incarnation())), 0o600); err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return vfs.SyncDir(dir)
}

// incarnationFile says which life a log was begun anew for.
const incarnationFile = "incarnation"

// Begun tells which life the log in dir was begun anew for; the first where it
// was not.
func Begun(dir string) (cluster.Incarnation, error) {
	text, err := os.ReadFile(filepath.Join(dir, incarnationFile))
	if errors.Is(err, fs.ErrNotExist) {
		return cluster.FirstIncarnation, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is damaged: %w", filepath.Join(dir, incarnationFile), err)
	}
	return cluster.Incarnation(n), nil
}

// writeNumbers keeps what must never be used twice: terms and sequences.
func (r Replayed) writeNumbers(disk *disk) error {
	if err := disk.SetUint64([]byte("CurrentTerm"), r.Term+1); err != nil {
		return err
	}
	if err := disk.SetUint64(snapshotKey, r.Last); err != nil {
		return err
	}
	return disk.SetUint64(seqKey, max(r.sequence, 1))
}

// Restored is a state that came out of a backup: it begins a log of its own.
func Restored(in io.Reader) (Replayed, error) {
	r := Replayed{Machine: NewMachine(), Last: 1, LastTerm: 1, Term: 1, End: 1}
	return r, r.Machine.Restore(in)
}
