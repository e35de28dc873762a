package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// fsm feeds Raft's committed entries to the machine. Raft calls it from one
// goroutine; only a snapshot's Persist runs beside it.
type fsm struct {
	machine *Machine
	applied atomic.Uint64 // index of the newest entry that the machine has seen
	moved   func()        // told after each entry
	ahead   func(uint32)  // told when the log is of a format that is not known here
}

// Apply implements raft.FSM; its answer is a *pb.Outcome.
func (f *fsm) Apply(l *raft.Log) any {
	out := f.machine.ApplyEntry(l.Data)
	if n := f.machine.Ahead(); n > 0 {
		f.ahead(n) // what came before stays as it was applied: nothing is reached
		return out
	}
	f.reached(l.Index)
	return out
}

// StoreConfiguration implements raft.ConfigurationStore: the machine judges
// receipts by the voters at its own place in the log.
func (f *fsm) StoreConfiguration(index uint64, c raft.Configuration) {
	var voters []string
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			voters = append(voters, string(s.ID))
		}
	}
	f.machine.SetVoters(voters)
	f.reached(index)
}

func (f *fsm) reached(index uint64) {
	f.applied.Store(index)
	f.moved()
}

// Snapshot implements raft.FSM. It is quick: Apply waits for it.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if n := f.machine.Ahead(); n > 0 {
		return nil, &NewerError{What: "the cluster's log", Format: n}
	}
	return &fsmSnapshot{index: f.applied.Load(), frozen: f.machine.Freeze()}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(in io.ReadCloser) error {
	defer func() { _ = in.Close() }()
	var index [8]byte
	if _, err := io.ReadFull(in, index[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	if err := f.machine.Restore(in); err != nil {
		var newer *NewerError
		if errors.As(err, &newer) {
			f.ahead(newer.Format)
		}
		return err
	}
	f.reached(binary.BigEndian.Uint64(index[:]))
	return nil
}

// fsmSnapshot is the index of the newest entry in it, then the machine's snapshot.
type fsmSnapshot struct {
	index  uint64
	frozen *Frozen
}

// Persist implements raft.FSMSnapshot.
func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	_, err := sink.Write(binary.BigEndian.AppendUint64(nil, s.index))
	if err == nil {
		_, err = s.frozen.WriteTo(sink)
	}
	if err != nil {
		_ = sink.Cancel()
		return fmt.Errorf("write the snapshot: %w", err)
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s *fsmSnapshot) Release() {}
