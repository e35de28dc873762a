package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

const (
	// stewardsEvery is how often a leader looks at the mounts' stewards.
	stewardsEvery = time.Second
	// stewardDead is after which silence a steward is replaced: longer than one
	// goes on by itself (syncer.SureFor) without having heard from a leader, and
	// than a deposed leader believes that it leads.
	stewardDead = 4 * time.Second
)

// stewards names the stewards of shared trees while this node leads. It looks at
// what is and names who is missing, so that a change of leaders loses nothing.
// One goroutine.
type stewards struct {
	self   cluster.NodeID
	log    *raftstore.Store
	peers  *peers
	fit    func(tree string) bool // of this node
	logger *slog.Logger

	since time.Time // when this node began to lead, zero while it does not
}

func (s *stewards) run(ctx context.Context) error {
	ch, stop := s.log.Watch()
	defer stop()
	tick := time.NewTicker(stewardsEvery)
	defer tick.Stop()
	for {
		if leader, ok := s.log.Leader(); ok && leader == s.self {
			if s.since.IsZero() {
				s.since = time.Now()
			}
			s.step(ctx)
		} else {
			s.since = time.Time{}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-ch:
		}
	}
}

// step names the stewards that are missing.
func (s *stewards) step(ctx context.Context) {
	for _, t := range s.log.Trees() {
		shares := s.log.Shares(t.Name)
		for _, m := range shares.Mounts {
			id, ok := raftstore.NextSteward(shares, m, func(id cluster.NodeID) raftstore.Life { return s.life(t.Name, id) })
			if !ok {
				continue
			}
			ctx, cancel := context.WithTimeout(ctx, steerWithin)
			out, err := s.log.Do(ctx, command(&pb.Command{Do: &pb.Command_PutSteward{PutSteward: &pb.PutSteward{
				Tree: t.Name, Mount: m.ID, Node: string(id), Epoch: m.Epoch,
			}}}))
			cancel()
			if err == nil {
				err = raftstore.OutcomeErr(out)
			}
			if err != nil {
				s.logger.Debug("cannot name a steward now", "tree", t.Name, "mount", m.ID, "err", err)
				continue
			}
			s.logger.Info("a shared tree has another steward", "tree", t.Name, "mount", m.ID, "steward", id, "before", m.Steward, "epoch", m.Epoch+1)
		}
	}
}

// life is what is known of a member that is or may become a steward. Who was
// silent before this node led does not count as dead: it may have been cut off
// itself.
func (s *stewards) life(tree string, id cluster.NodeID) raftstore.Life {
	if id == s.self { // which leads
		return raftstore.Life{Alive: true, Unfit: !s.fit(tree)}
	}
	if _, ok := s.log.Member(id); !ok {
		return raftstore.Life{Dead: true}
	}
	h, alive := s.peers.last(id)
	last := h.at
	if last.Before(s.since) {
		last = s.since
	}
	l := raftstore.Life{Alive: alive, Dead: time.Since(last) > stewardDead}
	if !alive {
		return l
	}
	if s.log.Follows(id) && !h.state.GetRaft() {
		return raftstore.Life{Alive: true, Unfit: true} // it hears of a leader at second hand, and has laid the office down
	}
	l.Unfit = true // without a word about the tree it does not have it
	for _, t := range h.state.GetTrees() {
		if t.GetName() == tree {
			l.Unfit = t.GetUnfit()
		}
	}
	return l
}
