package raftstore

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// strict is Raft's transport without what no member in its right mind says.
// Raft believes its peers: it ends the process over an entry that it cannot
// read, again at every start once that entry is stored, and takes over any
// term, be it one that no election can go beyond. Safe for concurrent use; one
// goroutine runs until Close.
type strict struct {
	*raft.NetworkTransport
	log *slog.Logger

	ready chan struct{} // closed when raft is known; who comes earlier waits
	raft  *raft.Raft

	passed  chan raft.RPC
	stop    chan struct{}
	once    sync.Once
	running sync.WaitGroup
	refused atomic.Bool // it was told once
}

const (
	// termsAhead and indexesAhead are how far another member may be: no cluster
	// lives to see so many elections or entries, and who adds them up is never done.
	termsAhead   = 1 << 32
	indexesAhead = 1 << 40
)

func newStrict(inner *raft.NetworkTransport, log *slog.Logger) *strict {
	t := &strict{
		NetworkTransport: inner, log: log,
		ready: make(chan struct{}), passed: make(chan raft.RPC), stop: make(chan struct{}),
	}
	t.running.Go(t.pass)
	return t
}

// serve begins, once Raft stands.
func (t *strict) serve(r *raft.Raft) {
	t.raft = r
	close(t.ready)
}

// Consumer implements raft.Transport.
func (t *strict) Consumer() <-chan raft.RPC { return t.passed }

// SetHeartbeatHandler implements raft.Transport.
func (t *strict) SetHeartbeatHandler(handle func(raft.RPC)) {
	t.NetworkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		if t.accept(rpc) {
			handle(rpc)
		}
	})
}

// RequestVote implements raft.Transport.
func (t *strict) RequestVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.NetworkTransport.RequestVote(id, to, args, resp); err != nil {
		return err
	}
	return t.reachable(resp.Term)
}

// RequestPreVote implements raft.WithPreVote.
func (t *strict) RequestPreVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.NetworkTransport.RequestPreVote(id, to, args, resp); err != nil {
		return err
	}
	return t.reachable(resp.Term)
}

// Close implements raft.WithClose; it may be called again.
func (t *strict) Close() error {
	t.once.Do(func() { close(t.stop) })
	err := t.NetworkTransport.Close()
	t.running.Wait()
	return err
}

// pass hands on what is acceptable.
func (t *strict) pass() {
	for {
		select {
		case <-t.stop:
			return
		case rpc := <-t.NetworkTransport.Consumer():
			if !t.accept(rpc) {
				continue
			}
			select {
			case t.passed <- rpc:
			case <-t.stop:
				return
			}
		}
	}
}

// accept answers what it refuses.
func (t *strict) accept(rpc raft.RPC) bool {
	err := t.check(rpc.Command)
	if err == nil {
		return true
	}
	if !errors.Is(err, ErrClosed) && !t.refused.Swap(true) {
		t.log.Error("a member says over Raft what cannot be; it is refused, and further ones are without a word", "err", err)
	}
	rpc.Respond(nil, err)
	return false
}

func (t *strict) check(command any) error {
	switch c := command.(type) {
	case *raft.AppendEntriesRequest:
		return cmp.Or(t.reachable(c.Term), soundEntries(c))
	case *raft.RequestVoteRequest:
		return t.reachable(c.Term)
	case *raft.RequestPreVoteRequest:
		return t.reachable(c.Term)
	case *raft.InstallSnapshotRequest:
		if err := t.reachable(c.Term); err != nil {
			return err
		}
		return soundSnapshot(c, t.raft.LastIndex())
	}
	return nil
}

// reachable refuses a term from which on no election could be won any more.
func (t *strict) reachable(term uint64) error {
	select {
	case <-t.ready:
	case <-t.stop:
		return ErrClosed
	}
	if now := t.raft.CurrentTerm(); term > now && term-now > termsAhead {
		return fmt.Errorf("term %d, and this node is in term %d", term, now)
	}
	return nil
}

// soundEntries tells what is wrong with the entries of a leader.
func soundEntries(a *raft.AppendEntriesRequest) error {
	for i, e := range a.Entries {
		if e == nil {
			return errors.New("an entry that is none")
		}
		if want := a.PrevLogEntry + 1 + uint64(i); e.Index != want || e.Term > a.Term {
			return fmt.Errorf("entry %d of term %d where %d was due, from a leader of term %d", e.Index, e.Term, want, a.Term)
		}
		switch e.Type {
		case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		case raft.LogConfiguration:
			if _, err := decodeConfiguration(e.Data); err != nil {
				return fmt.Errorf("entry %d: %w", e.Index, err)
			}
		default:
			return fmt.Errorf("entry %d of the unknown type %d", e.Index, e.Type)
		}
	}
	return nil
}

// soundSnapshot looks at what comes with a snapshot; its content is checked
// while it is written.
func soundSnapshot(c *raft.InstallSnapshotRequest, last uint64) error {
	if c.SnapshotVersion != raft.SnapshotVersionMax {
		return fmt.Errorf("a snapshot of version %d", c.SnapshotVersion)
	}
	if c.LastLogTerm > c.Term || c.LastLogIndex > last && c.LastLogIndex-last > indexesAhead {
		return fmt.Errorf("a snapshot up to entry %d of term %d, and this node is at entry %d", c.LastLogIndex, c.LastLogTerm, last)
	}
	_, err := decodeConfiguration(c.Configuration)
	return err
}
