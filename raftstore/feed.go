package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
)

// A follower's log is fed: a parent (any node that has the log) reads committed
// entries out of its own, here, and the follower's Store takes them in
// (replica.go). Only what is committed is ever sent, so Raft's safety is not
// touched, whoever feeds whom.

var (
	// ErrBehind: who is to feed knows less of the log than who is to be fed.
	ErrBehind = errors.New("this node's log ends before the follower's")
	// ErrDiverged: two logs hold different entries at a committed place.
	ErrDiverged = errors.New("the follower's log is not a part of this cluster's")
)

// Place says how far a log goes.
type Place struct {
	Applied, AppliedTerm uint64 // the last entry that is known to be committed
	Last, LastTerm       uint64 // the last entry
}

// Place returns how far this node's log goes.
func (s *Store) Place() (p Place, err error) {
	p.Applied, p.Last = s.raft.AppliedIndex(), s.raft.LastIndex()
	if p.AppliedTerm, err = s.termOf(p.Applied); err != nil {
		return p, err
	}
	p.LastTerm, err = s.termOf(p.Last)
	return p, err
}

// termOf finds the term of an entry that is in the log, or the last one of a
// snapshot; raft.ErrLogNotFound where it is in neither.
func (s *Store) termOf(index uint64) (uint64, error) {
	if index == 0 {
		return 0, nil
	}
	var entry raft.Log
	err := s.entry(index, &entry)
	if err == nil || !errors.Is(err, raft.ErrLogNotFound) {
		return entry.Term, err
	}
	return s.keptTerm(index)
}

// keptTerm is termOf for the last entry of a snapshot alone.
func (s *Store) keptTerm(index uint64) (uint64, error) {
	kept, err := s.kept.List()
	if err != nil {
		return 0, err
	}
	for _, m := range kept {
		if m.Index == index {
			return m.Term, nil
		}
	}
	return 0, raft.ErrLogNotFound
}

// entry reads the log as Raft does, but on a goroutine that is not Raft's:
// damage is an error here.
func (s *Store) entry(index uint64, into *raft.Log) error {
	err := s.logs.GetLog(index, into)
	s.report(err)
	return promised(err)
}

// Feed is a parent's place in one follower's log. One goroutine uses it.
type Feed struct {
	s              *Store
	prev, prevTerm uint64 // the follower has everything up to here
}

// Portion is what comes next: entries behind the one at Prev, or a snapshot
// that stands for everything up to its index.
type Portion struct {
	Prev, PrevTerm uint64
	Entries        []*raft.Log
	Snapshot       *raft.SnapshotMeta
	Content        io.ReadCloser // of the snapshot; the caller closes it
}

const (
	// feedEntries and feedBytes bound a portion. It is one message, and a follower
	// gives up a parent whose next message takes seconds: a slow link has to do.
	feedEntries = 256
	feedBytes   = 32 << 10
	// feedLook is how often a feed looks for what nobody tells of: entries that
	// are Raft's own.
	feedLook = 100 * time.Millisecond
)

// Feed begins behind what a follower has. It is an ErrBehind where the follower
// knows of more committed entries than this node.
func (s *Store) Feed(p Place) (*Feed, error) {
	known, logged := s.committed()
	if p.Applied > known {
		return nil, fmt.Errorf("%w: at entry %d, the follower's at %d", ErrBehind, known, p.Applied)
	}
	// What the follower has beyond its applied entry is of this log if the last
	// one is: logs that agree on an entry agree on all before it. That one is sent
	// again: a follower that was restarted does not know by itself that it is
	// committed, and where nothing else happens nothing else would tell it.
	if p.Applied < p.Last && p.Last <= logged {
		last, lerr := s.termOf(p.Last)
		before, berr := s.termOf(p.Last - 1)
		if lerr == nil && berr == nil && last == p.LastTerm {
			return &Feed{s: s, prev: p.Last - 1, prevTerm: before}, nil
		}
	}
	switch term, err := s.termOf(p.Applied); {
	case p.Applied > logged && p.Applied < known: // within a snapshot
	case errors.Is(err, raft.ErrLogNotFound): // long gone; Next sends a snapshot
	case err != nil:
		return nil, err
	case term != p.AppliedTerm:
		return nil, fmt.Errorf("%w: entry %d is of term %d here, and of term %d there", ErrDiverged, p.Applied, term, p.AppliedTerm)
	}
	return &Feed{s: s, prev: p.Applied, prevTerm: p.AppliedTerm}, nil
}

// committed tells up to which entry the log is known to be committed, and up to
// which of them the entries in the log are those. Behind a snapshot, be it
// restored or taken in, Raft's own figure lags until an entry follows, and so
// may the log: it may even hold entries that lost, where the snapshot tells of
// others. It is the snapshot's if it holds its last entry.
func (s *Store) committed() (known, logged uint64) {
	applied := s.raft.AppliedIndex() // first: it never goes ahead but by a snapshot
	logged = s.raft.CommitIndex()
	if applied <= logged {
		return logged, logged
	}
	var entry raft.Log
	if kept, err := s.keptTerm(applied); err == nil && s.entry(applied, &entry) == nil && entry.Term == kept {
		logged = applied
	}
	return applied, logged
}

// Next waits for what is committed behind the follower's place, and takes it
// for sent. What the log no longer holds comes as the newest snapshot.
func (f *Feed) Next(ctx context.Context) (Portion, error) {
	for {
		moved := f.s.applied.wait()
		if max(f.s.raft.CommitIndex(), f.s.raft.AppliedIndex()) > f.prev {
			return f.behind()
		}
		timer := time.NewTimer(feedLook)
		select {
		case <-moved:
		case <-timer.C:
		case <-f.s.closing:
			timer.Stop()
			return Portion{}, ErrClosed
		case <-ctx.Done():
			timer.Stop()
			return Portion{}, ctx.Err()
		}
		timer.Stop()
	}
}

// behind is what comes behind the follower's place, where there is something.
func (f *Feed) behind() (Portion, error) {
	_, logged := f.s.committed()
	if logged <= f.prev {
		return f.snapshot()
	}
	p, err := f.entries(logged)
	if errors.Is(err, raft.ErrLogNotFound) {
		return f.snapshot()
	}
	return p, err
}

func (f *Feed) entries(committed uint64) (Portion, error) {
	p := Portion{Prev: f.prev, PrevTerm: f.prevTerm}
	for size := 0; f.prev < committed && len(p.Entries) < feedEntries && size < feedBytes; {
		entry := new(raft.Log)
		if err := f.s.entry(f.prev+1, entry); err != nil {
			if len(p.Entries) > 0 && errors.Is(err, raft.ErrLogNotFound) {
				break // the log was cut right here; the next call sends a snapshot
			}
			return Portion{}, err
		}
		p.Entries = append(p.Entries, entry)
		f.prev, f.prevTerm = entry.Index, entry.Term
		size += len(entry.Data)
	}
	return p, nil
}

func (f *Feed) snapshot() (Portion, error) {
	all, err := f.s.kept.List()
	if err != nil {
		return Portion{}, err
	}
	if len(all) == 0 || all[0].Index <= f.prev {
		return Portion{}, fmt.Errorf("%w: there is no entry behind %d and no snapshot of one", ErrBehind, f.prev)
	}
	meta, in, err := f.s.kept.Open(all[0].ID)
	if err != nil {
		return Portion{}, err
	}
	f.prev, f.prevTerm = meta.Index, meta.Term
	return Portion{Snapshot: meta, Content: in}, nil
}

// Told is what a parent knows of the cluster at a moment.
type Told struct {
	Leader   cluster.NodeID
	Quorum   bool   // a leader works, as far as the parent can see
	CaughtUp bool   // the parent has applied what that leader had committed when it was found
	Applied  uint64 // index that the parent has applied
}

// Tell says what this node knows, for those that it feeds. A follower without
// room takes nothing more: to its children it is as deaf as one that hears of no
// leader, and they look for another parent.
func (s *Store) Tell() Told {
	leader, _ := s.Leader()
	t := Told{Leader: leader, Quorum: s.Quorum(), CaughtUp: s.CaughtUp()}
	t.Applied = s.fsm.applied.Load() // last: the others are of no later moment
	if s.fed.Load() != nil && s.room() != nil {
		t.Quorum = false
	}
	t.CaughtUp = t.CaughtUp && t.Quorum
	return t
}

// AppliedIndex is the entry up to which this node has applied the log.
func (s *Store) AppliedIndex() uint64 { return s.raft.AppliedIndex() }
