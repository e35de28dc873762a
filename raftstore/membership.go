package raftstore

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
)

// These change who takes part in Raft. They work on the leader only, else
// they return a *cluster.NotLeaderError; each may be repeated. Whom the cluster
// knows as a member is the machine's business (PutMember, RemoveMember).

// AddNonVoter lets a node receive the log. A voter stays one.
func (s *Store) AddNonVoter(ctx context.Context, id cluster.NodeID) error {
	return s.reconfigure(ctx, func() raft.Future {
		return s.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, s.cfg.Tuning.RPC)
	})
}

// Promote makes a non-voter a voter. It counts at once, so it should have
// caught up before (NextStep asks for that).
func (s *Store) Promote(ctx context.Context, id cluster.NodeID) error {
	if s.raft.State() != raft.Leader {
		return s.notLeader()
	}
	switch s.role(id) {
	case cluster.Voter:
		return nil
	case "":
		return fmt.Errorf("promote %s: it does not receive the log yet; add it as a non-voter first", id)
	}
	return s.reconfigure(ctx, func() raft.Future {
		return s.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(id), 0, s.cfg.Tuning.RPC)
	})
}

// Demote makes a voter a non-voter. A leader that is to demote itself hands
// leadership over instead and returns a *cluster.NotLeaderError: ask the new one.
func (s *Store) Demote(ctx context.Context, id cluster.NodeID) error {
	if err := s.yield(ctx, id); err != nil {
		return err
	}
	return s.reconfigure(ctx, func() raft.Future {
		return s.raft.DemoteVoter(raft.ServerID(id), 0, s.cfg.Tuning.RPC)
	})
}

// Remove takes a node out of Raft; see Demote for a leader that is to remove
// itself. The member stays a member until RemoveMember is committed.
func (s *Store) Remove(ctx context.Context, id cluster.NodeID) error {
	if err := s.yield(ctx, id); err != nil {
		return err
	}
	return s.reconfigure(ctx, func() raft.Future {
		return s.raft.RemoveServer(raft.ServerID(id), 0, s.cfg.Tuning.RPC)
	})
}

// Transfer makes another voter the leader, one that answers.
func (s *Store) Transfer(ctx context.Context) error { return s.TransferTo(ctx, "") }

// TransferTo makes this voter the leader; "" leaves the choice to Raft.
func (s *Store) TransferTo(ctx context.Context, id cluster.NodeID) error {
	if s.raft.State() != raft.Leader {
		return s.notLeader()
	}
	if id == s.cfg.ID {
		return nil
	}
	if err := s.wait(ctx, func() error { return s.transfer(id) }); err != nil {
		return fmt.Errorf("hand leadership over: %w", err)
	}
	return nil
}

// yield hands leadership over where the leader is to change itself.
func (s *Store) yield(ctx context.Context, id cluster.NodeID) error {
	if id != s.cfg.ID || s.raft.State() != raft.Leader {
		return nil
	}
	if err := s.Transfer(ctx); err != nil {
		return err
	}
	return s.notLeader()
}

func (s *Store) role(id cluster.NodeID) cluster.Role {
	for _, srv := range s.raft.GetConfiguration().Configuration().Servers {
		if cluster.NodeID(srv.ID) == id {
			return roleOf(srv.Suffrage)
		}
	}
	return ""
}

// reconfigure waits for a change of Raft's configuration to be committed.
func (s *Store) reconfigure(ctx context.Context, begin func() raft.Future) error {
	if s.raft.State() != raft.Leader {
		return s.notLeader()
	}
	return s.wait(ctx, func() error { return s.fromRaft(begin().Error()) })
}

// wait runs f, which waits for Raft, until ctx ends; f itself ends with Raft.
func (s *Store) wait(ctx context.Context, f func() error) error {
	s.entering.RLock()
	if s.isClosing() {
		s.entering.RUnlock()
		return ErrClosed
	}
	s.inside.Add(1)
	s.entering.RUnlock()
	back := make(chan error, 1)
	go func() {
		defer s.inside.Done()
		back <- f()
	}()
	select {
	case err := <-back:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
