package node

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// raftGroup is what only the leader may do to Raft's membership.
type raftGroup interface {
	membership
	watcher
	revisions
	Barrier(ctx context.Context) error
	Servers() ([]cluster.Member, error) // Raft's own configuration
	AddNonVoter(ctx context.Context, id cluster.NodeID) error
	Promote(ctx context.Context, id cluster.NodeID) error
	Demote(ctx context.Context, id cluster.NodeID) error
	Remove(ctx context.Context, id cluster.NodeID) error
}

// steering makes Raft's membership follow the log's while this node leads:
// members come in as non-voters, vote as raftstore.NextStep says, and who was
// removed goes. It looks at what is and does the next step, so that a change of
// leaders in the middle of anything loses nothing. One goroutine runs;
// standings may be asked by any.
type steering struct {
	self   cluster.NodeID
	group  raftGroup
	peers  *peers
	lacks  func() uint64 // blobs that this node itself does not hold
	policy raftstore.Policy
	now    func() time.Time
	log    *slog.Logger

	mu sync.Mutex
	// since is when this node began to lead; zero while it does not. What was
	// silent before does not count as dead: this node may have been cut off.
	since time.Time
	// first is, for each living member, the revision that stood when this
	// leader first heard of it. Who holds all content up to there has been
	// complete once, and lacks only what has come since.
	first map[cluster.NodeID]manifest.Revision
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
		if s.leads() {
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

// leads tells whether this node leads, and notes since when.
func (s *steering) leads() bool {
	leader, ok := s.group.Leader()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch leads := ok && leader == s.self; {
	case !leads:
		s.since, s.first = time.Time{}, nil
	case s.since.IsZero():
		s.since, s.first = s.now(), map[cluster.NodeID]manifest.Revision{}
	}
	return !s.since.IsZero()
}

// step does what is due. It looks twice: a new leader has not applied all of
// its log yet, and would take who came last for a stranger; and who died within
// the last seconds still seems alive.
func (s *steering) step(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, steerWithin)
	defer cancel()
	due, err := s.due(s.standings(time.Time{}))
	if err != nil || due == nil {
		return err
	}
	if err := s.group.Barrier(ctx); err != nil {
		return err
	}
	now := s.standings(time.Time{})
	if due.takesVote() {
		now = s.fresh(ctx)
	}
	again, err := s.due(now)
	if err != nil || again == nil || *again != *due {
		return err
	}
	s.log.Info("changing Raft's membership", "to", due.what, "id", due.id, "why", due.why)
	switch due.what {
	case asNonVoter:
		return s.group.AddNonVoter(ctx, due.id)
	case asStranger:
		return s.group.Remove(ctx, due.id)
	case asVoter:
		return s.group.Promote(ctx, due.id)
	case asDemoted:
		return s.group.Demote(ctx, due.id)
	}
	return nil
}

// change is one change of Raft's membership.
type change struct {
	what string
	id   cluster.NodeID
	why  string
}

const (
	asNonVoter = "a new non-voter"
	asStranger = "no member"
	asVoter    = "a voter"
	asDemoted  = "a non-voter"
)

func (c *change) takesVote() bool { return c.what == asDemoted }

// due tells what is due now, nil for nothing.
func (s *steering) due(standings []raftstore.Standing) (*change, error) {
	servers, err := s.group.Servers()
	if err != nil {
		return nil, err
	}
	members := map[cluster.NodeID]bool{}
	for _, m := range standings {
		members[m.ID] = true
	}
	if !members[s.self] {
		return nil, nil // not read far enough to judge anybody
	}
	for _, m := range standings {
		switch in := contains(servers, m.ID); {
		case !in && m.Role != cluster.Follower:
			return &change{asNonVoter, m.ID, "it has joined"}, nil
		case in && m.Role == cluster.Follower && s.mayFollow(m):
			return &change{asStranger, m.ID, "it is a follower now"}, nil
		}
	}
	for _, r := range servers {
		if !members[r.ID] {
			return &change{asStranger, r.ID, "it was removed"}, nil
		}
	}
	next, ok := raftstore.NextStep(standings, s.policy)
	switch {
	case !ok:
		return nil, nil
	case next.Role == cluster.Voter:
		return &change{asVoter, next.ID, next.Why}, nil
	}
	return &change{asDemoted, next.ID, next.Why}, nil
}

func contains(members []cluster.Member, id cluster.NodeID) bool {
	return slices.ContainsFunc(members, func(m cluster.Member) bool { return m.ID == id })
}

// fresh is standings of now: alive is who answers this very moment.
func (s *steering) fresh(ctx context.Context) []raftstore.Standing {
	begun := s.now()
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	s.peers.refresh(ctx)
	return s.standings(begun)
}

// standings is what this leader knows of all members. Alive is who was heard
// lately, and not before since.
func (s *steering) standings(since time.Time) []raftstore.Standing {
	members := s.group.Members()
	revision := s.group.Revision()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]raftstore.Standing, len(members))
	for i, m := range members {
		h, heard := s.peers.last(m.ID)
		alive := heard && (m.ID == s.self || !h.at.Before(since))
		st := raftstore.Standing{Member: m, Alive: alive}
		switch {
		case m.ID == s.self:
			st.Ready = true
		case alive:
			st.Ready = s.caughtUp(m.ID, h.state, revision)
		default:
			if !heard {
				delete(s.first, m.ID)
			}
			last := h.at
			if last.Before(s.since) {
				last = s.since
			}
			st.Dead = s.now().Sub(last)
		}
		out[i] = st
	}
	return out
}

// caughtUp tells whether a living member has the log and the content. The lock
// is held.
func (s *steering) caughtUp(id cluster.NodeID, state *pb.NodeState, revision manifest.Revision) bool {
	if s.first == nil {
		return false // this node leads no more
	}
	first, seen := s.first[id]
	if !seen {
		first = revision
		s.first[id] = first
	}
	return complete(state, s.lacks(), first, revision)
}

// mayFollow tells whether a non-voter that was made a follower may be taken out
// of Raft: it has read so in its log, or it is dead.
func (s *steering) mayFollow(m raftstore.Standing) bool {
	h, alive := s.peers.last(m.ID)
	return !alive || h.state != nil && !h.state.GetRaft()
}

// complete judges what a member says of itself. Its trees do not matter: who
// votes needs the log and the content, and a witness has no tree. What the
// leader lacks itself (content that was lost with a majority, before recover) it
// cannot ask of others: who lacks no more than that is as good.
func complete(s *pb.NodeState, leaderLacks uint64, first, revision manifest.Revision) bool {
	reaches := func(have uint64) bool { return have >= uint64(first) && have+nearly >= uint64(revision) }
	switch {
	case s == nil || !s.GetRaft() || s.GetVisit() || s.GetRevision()+nearly < uint64(revision):
		return false
	case reaches(s.GetContent()):
		return true
	}
	return s.GetMissing() > 0 && s.GetMissing() <= leaderLacks && reaches(s.GetLooked())
}
