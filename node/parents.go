package node

import (
	"slices"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// parents decides whom a follower asks next to feed it. It is pure: the clock
// and the dice are the caller's. Who is full names its children, and the search
// goes down from there at random, so that the tree stays low and even.
type parents struct {
	self  cluster.NodeID
	hints []cluster.NodeID             // of the latest redirect: they are asked first
	rests map[cluster.NodeID]time.Time // not asked before then
	fails map[cluster.NodeID]int       // in a row
}

// ending is how an attempt to be fed ended.
type ending int

const (
	endUnreachable ending = iota // it never answered
	endLost                      // it fed this node, and does no more
	endFull
	endLoop
	endNoUpstream
	endBehind
	endNoFollower
	endDiverged
	endStalled
	endBetter // another one was found who hears from a leader
)

// rest is how long somebody is left alone after an attempt, before the dice;
// unreachable ones double it each time, up to restMost.
var rest = map[ending]time.Duration{
	endUnreachable: time.Second, endLost: 500 * time.Millisecond, endFull: 10 * time.Second, endLoop: 3 * time.Second, endNoUpstream: time.Second,
	endBehind: time.Second, endNoFollower: time.Second, endDiverged: time.Minute, endStalled: 10 * time.Second, endBetter: 5 * time.Second,
}

const restMost = 30 * time.Second

// endingOf reads a redirect.
func endingOf(why pb.FollowRedirect_Why) ending {
	switch why {
	case pb.FollowRedirect_FULL:
		return endFull
	case pb.FollowRedirect_LOOP:
		return endLoop
	case pb.FollowRedirect_NO_UPSTREAM:
		return endNoUpstream
	case pb.FollowRedirect_BEHIND:
		return endBehind
	case pb.FollowRedirect_NO_FOLLOWER:
		return endNoFollower
	case pb.FollowRedirect_DIVERGED:
		return endDiverged
	}
	return endUnreachable
}

// next picks whom to ask: first who was named by one that is full, then the
// members of Raft, then other followers; among equals the dice decide. Where
// nobody is to be asked now it says when.
func (p *parents) next(now time.Time, members []cluster.Member, dice func(n int) int) (cluster.NodeID, time.Duration) {
	var hinted, raft, others []cluster.NodeID
	soonest := restMost
	for _, m := range members {
		if m.ID == p.self {
			continue
		}
		if until := p.rests[m.ID]; now.Before(until) {
			soonest = min(soonest, until.Sub(now))
			continue
		}
		switch {
		case slices.Contains(p.hints, m.ID):
			hinted = append(hinted, m.ID)
		case m.Role == cluster.Follower:
			others = append(others, m.ID)
		default:
			raft = append(raft, m.ID)
		}
	}
	for _, group := range [][]cluster.NodeID{hinted, raft, others} {
		if len(group) > 0 {
			return group[dice(len(group))], 0
		}
	}
	return "", soonest
}

// ended takes note of an attempt.
func (p *parents) ended(now time.Time, id cluster.NodeID, how ending, instead []cluster.NodeID, dice func(n int) int) {
	if p.rests == nil {
		p.rests, p.fails = map[cluster.NodeID]time.Time{}, map[cluster.NodeID]int{}
	}
	pause := rest[how]
	if how == endUnreachable {
		pause = min(pause<<min(p.fails[id], 8), restMost)
		p.fails[id]++
	} else {
		delete(p.fails, id)
	}
	pause += time.Duration(dice(int(pause/2) + 1))
	p.rests[id] = now.Add(pause)
	if how == endFull || how == endBetter {
		p.hints = instead
	}
}

// keep forgets who is no member.
func (p *parents) keep(members []cluster.Member) {
	for id := range p.rests {
		if !contains(members, id) {
			delete(p.rests, id)
			delete(p.fails, id)
		}
	}
}
