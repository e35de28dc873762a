package node

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// raftGroup is what only the leader may do to Raft's membership.
type raftGroup interface {
	membership
	watcher
	revisions
	Servers() ([]cluster.Member, error) // Raft's own configuration
	AddNonVoter(ctx context.Context, id cluster.NodeID) error
	Promote(ctx context.Context, id cluster.NodeID) error
	Remove(ctx context.Context, id cluster.NodeID) error
}

// steering makes Raft's membership follow the log's while this node leads:
// members come in as non-voters, are promoted once they have the log and the
// content, and who was removed goes. It looks at what is and does the next
// step, so that a change of leaders in the middle of anything loses nothing.
// One goroutine.
type steering struct {
	self   cluster.NodeID
	group  raftGroup
	peers  *peers
	wanted int // voters
	log    *slog.Logger
}

const (
	steerEvery  = time.Second
	steerWithin = 5 * time.Second
	// nearly is how many revisions a caught-up node may lack: under load the
	// newest are always on their way.
	nearly = 64
)

func (s *steering) run(ctx context.Context) error {
	ch, stop := s.group.Watch()
	defer stop()
	tick := time.NewTicker(steerEvery)
	defer tick.Stop()
	for {
		if leader, ok := s.group.Leader(); ok && leader == s.self {
			if err := s.step(ctx); err != nil && ctx.Err() == nil {
				s.log.Debug("cannot change Raft's membership now", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-ch:
		}
	}
}

// step does what is due.
func (s *steering) step(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, steerWithin)
	defer cancel()
	servers, err := s.group.Servers()
	if err != nil {
		return err
	}
	members := s.group.Members()
	if !contains(members, s.self) {
		return nil // not read far enough to judge anybody
	}
	for _, m := range members {
		if !contains(servers, m.ID) {
			s.log.Info("adding a non-voter", "id", m.ID, "name", m.Name)
			return s.group.AddNonVoter(ctx, m.ID)
		}
	}
	for _, r := range servers {
		if !contains(members, r.ID) {
			s.log.Info("removing from Raft", "id", r.ID)
			return s.group.Remove(ctx, r.ID)
		}
	}
	if id, ok := raftstore.NextPromotion(members, s.ready, s.wanted); ok {
		s.log.Info("promoting to voter", "id", id)
		return s.group.Promote(ctx, id)
	}
	return nil
}

func contains(members []cluster.Member, id cluster.NodeID) bool {
	return slices.ContainsFunc(members, func(m cluster.Member) bool { return m.ID == id })
}

// ready tells whether a member has the log and the content.
func (s *steering) ready(id cluster.NodeID) bool {
	h, alive := s.peers.last(id)
	if id == s.self {
		return true
	}
	return alive && caughtUp(h.state, uint64(s.group.Revision()))
}

// caughtUp judges what a member says of itself.
func caughtUp(s *pb.NodeState, revision uint64) bool {
	return s != nil && s.GetRaft() && !s.GetVisit() && s.GetRevision()+nearly >= revision && s.GetApplied()+nearly >= revision
}
