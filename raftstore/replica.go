package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
)

// The receiving end of feed.go. What a parent sends goes into this node's own
// Raft, as the calls of a leader: so the log on disk, the care for damage,
// snapshots, replay and formats are those of every other node. Raft here is in
// no configuration: it never votes and never calls an election. A call's term
// is that of the newest committed entry, never one that a parent made up.

// call makes Raft handle a call and waits for its answer. Once Raft has it, only
// Raft's end ends the wait: it may be reading from in.
func (s *Store) call(ctx context.Context, command any, in io.Reader) (any, error) {
	back := make(chan raft.RPCResponse, 1)
	select {
	case s.transport.passed <- raft.RPC{Command: command, Reader: in, RespChan: back}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closing:
		return nil, ErrClosed
	}
	select {
	case r := <-back:
		return r.Response, r.Error
	case <-s.closing:
		return nil, ErrClosed
	}
}

// Take appends committed entries, which follow the one at prev, and applies
// them; without entries it only notes that the parent is there, and what it
// says. It returns once they are in the log on disk. Taking entries again is no
// harm. One caller at a time feeds a Store; others wait.
func (s *Store) Take(ctx context.Context, told Told, prev, prevTerm uint64, entries []*raft.Log) error {
	s.feeding.Lock()
	defer s.feeding.Unlock()
	if s.Silent() {
		return errFenced
	}
	if err := s.room(); err != nil && len(entries) > 0 {
		return err
	}
	term, through := s.raft.CurrentTerm(), s.raft.CommitIndex()
	for _, e := range entries {
		if e.Term == 0 {
			return fmt.Errorf("entry %d of no term", e.Index)
		}
		term, through = max(term, e.Term), max(through, e.Index)
	}
	if err := s.transport.check(&raft.AppendEntriesRequest{Term: term, PrevLogEntry: prev, Entries: entries}); err != nil {
		return err
	}
	if len(entries) > 0 {
		var err error
		if prev, prevTerm, entries, err = s.behindApplied(prev, prevTerm, entries); err != nil {
			return err
		}
	}
	if len(entries) == 0 {
		if !told.Quorum {
			return nil // and so Raft does not hear of a leader
		}
		prev, prevTerm = 0, 0
	}
	s.fed.Store(&told)
	leader := s.transport.EncodePeer(raft.ServerID(told.Leader), raft.ServerAddress(told.Leader))
	answer, err := s.call(ctx, &raft.AppendEntriesRequest{
		RPCHeader:    raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(told.Leader), Addr: leader},
		Term:         term,
		PrevLogEntry: prev, PrevLogTerm: prevTerm, Entries: entries, LeaderCommitIndex: through,
	}, nil)
	if err != nil {
		return err
	}
	if r, ok := answer.(*raft.AppendEntriesResponse); !ok || !r.Success {
		return fmt.Errorf("the log does not take the %d entries up to %d, it ends with %d", len(entries), through, s.raft.LastIndex())
	}
	s.applied.signal() // also of entries that are Raft's own
	s.leaders.signal()
	return nil
}

// behindApplied leaves out what is applied here. Behind that Raft need not compare
// anything (prev 0), and it could not where a snapshot is all that it has of it.
func (s *Store) behindApplied(prev, prevTerm uint64, entries []*raft.Log) (uint64, uint64, []*raft.Log, error) {
	applied := s.raft.AppliedIndex()
	for len(entries) > 0 && entries[0].Index <= applied {
		prev, prevTerm, entries = entries[0].Index, entries[0].Term, entries[1:]
	}
	if prev != applied {
		return prev, prevTerm, entries, nil
	}
	switch term, err := s.termOf(applied); {
	case err != nil && !errors.Is(err, raft.ErrLogNotFound):
		return 0, 0, nil, err
	case err == nil && term != prevTerm:
		return 0, 0, nil, fmt.Errorf("%w: entry %d is of term %d here, and of term %d there", ErrDiverged, applied, term, prevTerm)
	}
	return 0, 0, entries, nil
}

// Spool is a snapshot that comes in from a parent. It is on disk before Raft
// sees it, which would stand still meanwhile. One goroutine uses it.
type Spool struct {
	s    *Store
	meta raft.SnapshotMeta
	file *os.File
	have int64
}

// spoolFile lies in Raft's directory; what a crash leaves of it is overwritten.
const spoolFile = "fed.snapshot"

// Spool begins to take a snapshot.
func (s *Store) Spool(meta raft.SnapshotMeta) (*Spool, error) {
	switch free := s.free.Load(); {
	case s.Silent():
		return nil, errFenced
	case meta.Index <= s.raft.AppliedIndex():
		return nil, fmt.Errorf("a snapshot of entry %d, and %d is applied here already", meta.Index, s.raft.AppliedIndex())
	case meta.Size < 0:
		return nil, errors.New("a malformed snapshot")
	case s.cfg.Reserve >= 0 && free-meta.Size*2 < s.cfg.Reserve:
		return nil, &RoomError{Free: free, Reserve: s.cfg.Reserve + meta.Size*2}
	}
	file, err := os.OpenFile(filepath.Join(s.cfg.Dir, spoolFile), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take a snapshot: %w", err)
	}
	return &Spool{s: s, meta: meta, file: file}, nil
}

// Write implements io.Writer.
func (p *Spool) Write(b []byte) (int, error) {
	if p.have+int64(len(b)) > p.meta.Size {
		return 0, fmt.Errorf("a snapshot of %d bytes is longer than that", p.meta.Size)
	}
	n, err := p.file.Write(b)
	p.have += int64(n)
	return n, err
}

// Install makes Raft take the snapshot in, which has come whole.
func (p *Spool) Install(ctx context.Context, told Told) error {
	s := p.s
	if p.have != p.meta.Size {
		return fmt.Errorf("%d of %d bytes of a snapshot have come", p.have, p.meta.Size)
	}
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	s.feeding.Lock()
	defer s.feeding.Unlock()
	if p.meta.Index <= s.raft.AppliedIndex() {
		return nil // it has come by another way
	}
	s.fed.Store(&told)
	leader := s.transport.EncodePeer(raft.ServerID(told.Leader), raft.ServerAddress(told.Leader))
	req := &raft.InstallSnapshotRequest{
		RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(told.Leader), Addr: leader},
		SnapshotVersion: p.meta.Version, Term: max(s.raft.CurrentTerm(), p.meta.Term),
		LastLogIndex: p.meta.Index, LastLogTerm: p.meta.Term,
		Configuration: raft.EncodeConfiguration(p.meta.Configuration), ConfigurationIndex: p.meta.ConfigurationIndex,
		Size: p.meta.Size,
	}
	if err := s.transport.check(req); err != nil {
		return err
	}
	answer, err := s.call(ctx, req, p.file)
	if err != nil {
		return fmt.Errorf("install the snapshot of entry %d: %w", p.meta.Index, err)
	}
	if r, ok := answer.(*raft.InstallSnapshotResponse); !ok || !r.Success {
		return fmt.Errorf("the snapshot of entry %d was not taken", p.meta.Index)
	}
	s.applied.signal()
	return nil
}

// Close gives up what was not installed.
func (p *Spool) Close() error {
	return errors.Join(p.file.Close(), os.Remove(p.file.Name()))
}

// DecodeSnapshotConfiguration reads what a parent sent; Raft's own panics.
func DecodeSnapshotConfiguration(b []byte) (raft.Configuration, error) {
	return decodeConfiguration(b)
}

// Unfed ends the feeding: from now on this node takes part in Raft, or nobody
// feeds it.
func (s *Store) Unfed() {
	s.fed.Store(nil)
	s.applied.signal() // fedUp waits for what nobody will say any more
}

// fedUp waits until a fed node has applied what its parent had when that was
// caught up under the present leader. It tells false where this node is not fed.
func (s *Store) fedUp(ctx context.Context) (bool, error) {
	mark, known := uint64(0), false
	for {
		moved := s.applied.wait()
		told := s.fed.Load()
		if told == nil {
			return false, nil
		}
		if leader, _ := s.Leader(); !known && told.CaughtUp && told.Leader == leader && leader != cluster.NodeID("") {
			mark, known = told.Applied, true
		}
		if known && s.fsm.applied.Load() >= mark {
			return true, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return true, ctx.Err()
		case <-s.closing:
			return true, ErrClosed
		}
	}
}
