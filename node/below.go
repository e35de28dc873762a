package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

const (
	// aliveBelow is how long what was passed on counts: each step of the way up
	// takes up to a second.
	aliveBelow = 8 * time.Second
	// passedBytes bounds what one hello passes on.
	passedBytes = 384 << 10
)

// passed is what was heard of a member through another one.
type passed struct {
	at    time.Time // of its word, by this node's clock
	state *pb.NodeState
	via   cluster.NodeID
}

// place is this node's part in the tree of followers. Without functions it is a
// member of Raft in a cluster that has no followers.
type place struct {
	ofSelf     func() bool                   // this node is a follower
	ofMember   func(cluster.NodeID) bool     // that member is one
	fedBy      func() (cluster.NodeID, bool) // who feeds this follower
	membership func(cluster.NodeID) bool     // is a member at all
	disowned   func() bool                   // possible parents refuse this follower as no member
}

func (p place) follows() bool                   { return p.ofSelf != nil && p.ofSelf() }
func (p place) follower(id cluster.NodeID) bool { return p.ofMember != nil && p.ofMember(id) }
func (p place) member(id cluster.NodeID) bool   { return p.membership != nil && p.membership(id) }
func (p place) parent() (cluster.NodeID, bool) {
	if p.fedBy == nil {
		return "", false
	}
	return p.fedBy()
}

// hearBelow takes what somebody passes on. Nobody is taken at another's word
// where he speaks for himself: last prefers what was heard directly and later.
func (p *peers) hearBelow(from cluster.NodeID, states []*pb.NodeState) {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.below == nil {
		p.below = map[cluster.NodeID]passed{}
	}
	for _, s := range states {
		id, at := cluster.NodeID(s.GetId()), now.Add(-time.Duration(min(s.GetAgeMs(), 1<<40))*time.Millisecond)
		if id == p.self || id == from || !p.place.member(id) || len(s.GetVersion()) > maxVersion || len(s.GetTrees()) > maxTreeStates {
			continue
		}
		if old, ok := p.below[id]; !ok || at.After(old.at) {
			clean(s)
			p.below[id] = passed{at, s, from}
		}
	}
}

// brief is what is passed on of a member's word.
func brief(s *pb.NodeState, age time.Duration) *pb.NodeState {
	return &pb.NodeState{
		Id: s.GetId(), Version: s.GetVersion(), Format: s.GetFormat(), Store: s.GetStore(), Revision: s.GetRevision(), Applied: s.GetApplied(),
		Content: s.GetContent(), Missing: s.GetMissing(), Looked: s.GetLooked(), Lacks: s.GetLacks(), Trusts: s.GetTrusts(), Issuer: s.GetIssuer(),
		Raft: s.GetRaft(), Trees: s.GetTrees(), Targets: s.GetTargets(), AgeMs: uint64(max(0, age.Milliseconds())),
	}
}

// passOn lists what is to be told: what meant says yes to, of what is known of
// others, by who it is about and who has told it ("": itself).
func (p *peers) passOn(meant func(about, via cluster.NodeID) bool) (out []*pb.NodeState) {
	now, size := p.now(), 0
	p.mu.Lock()
	defer p.mu.Unlock()
	add := func(id, via cluster.NodeID, at time.Time, s *pb.NodeState) {
		if s == nil || now.Sub(at) > 2*aliveBelow || !meant(id, via) {
			return
		}
		b := brief(s, now.Sub(at))
		if size += gproto.Size(b) + 8; size <= passedBytes {
			out = append(out, b)
		}
	}
	for id, h := range p.heard {
		if b, ok := p.below[id]; !ok || !b.at.After(h.at) {
			add(id, "", h.at, h.state)
		}
	}
	for id, b := range p.below {
		if h, ok := p.heard[id]; !ok || b.at.After(h.at) {
			add(id, b.via, b.at, b.state)
		}
	}
	return out
}

// known lists the addresses that a hello carries: nobody dials a follower but
// another one, which has them from the log.
func (p *peers) known() []cluster.Member {
	return slices.DeleteFunc(p.book.members(), func(m cluster.Member) bool { return m.Role == cluster.Follower && m.ID != p.self })
}

// subtree is what this node says upwards, and a member of Raft to the others:
// the followers that get the log through it.
func (p *peers) subtree() []*pb.NodeState {
	parent, _ := p.place.parent()
	return p.passOn(func(about, via cluster.NodeID) bool {
		if !p.place.follower(about) || about == parent {
			return false
		}
		if via == "" {
			return true // a child
		}
		return via != parent && p.place.follower(via)
	})
}

// answerBelow is what a caller is told of others: a member of Raft hears of the
// followers below this node; a follower of the members of Raft, or of everybody.
func (p *peers) answerBelow(caller cluster.NodeID, all bool) []*pb.NodeState {
	if !p.place.follower(caller) {
		return p.subtree()
	}
	return p.passOn(func(about, via cluster.NodeID) bool {
		return about != caller && via != caller && (all || !p.place.follower(about))
	})
}

// lastBelow is last for whom nobody hears directly; the lock is held.
func (p *peers) lastBelow(id cluster.NodeID, h heard) (heard, bool) {
	b, ok := p.below[id]
	if !ok || !b.at.After(h.at) {
		return h, false
	}
	h.at, h.state, h.err = b.at, b.state, nil
	return h, p.now().Sub(b.at) <= aliveBelow
}

// forgetBelow drops who is no member any more; the lock is held.
func (p *peers) forgetBelow() {
	for id := range p.below {
		if !p.place.member(id) {
			delete(p.below, id)
		}
	}
}

// waitTold waits until a member is known to have applied a revision, by what is
// told of it; an error where it is silent.
func (p *peers) waitTold(ctx context.Context, id cluster.NodeID, rev manifest.Revision) error {
	const look, ask = 50 * time.Millisecond, 10 // every tenth look asks
	for i := 0; ; i++ {
		h, alive := p.last(id)
		switch {
		case h.state.GetApplied() >= uint64(rev):
			return nil
		case !alive:
			return fmt.Errorf("%s does not answer any more", id)
		}
		if p.place.follows() && i%ask == 0 {
			p.refresh(ctx)
		}
		if err := wait(ctx, look); err != nil {
			return err
		}
	}
}
