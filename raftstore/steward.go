package raftstore

import (
	"slices"

	"github.com/gatesync/gatesync/cluster"
)

// Life is what a leader knows of a member that has a tree.
type Life struct {
	Alive bool // heard a moment ago
	Dead  bool // silent for longer than a steward goes on by itself
	Unfit bool // alive, and its root is lost or does not answer
}

// NextSteward tells who is to be a mount's steward, where that is to change:
// the present one while it lives and its root is in order, else the lowest
// member of whom both is true. A node that is alone on a mount, and reads the
// nonces of others there who have not answered, becomes its steward only once
// those are dead: they might work in the same directory.
func NextSteward(s cluster.Shares, m cluster.Mount, life func(cluster.NodeID) Life) (cluster.NodeID, bool) {
	if m.Steward != "" {
		if l := life(m.Steward); !l.Dead && !l.Unfit {
			return "", false
		}
	}
	// Who knows what stands there goes before a newcomer.
	members := slices.Clone(m.Members)
	slices.SortStableFunc(members, func(a, b cluster.NodeID) int { return rank(s, a) - rank(s, b) })
	for _, id := range members {
		g, ok := s.Of(id)
		l := life(id)
		if !ok || !l.Alive || l.Unfit || id == m.Steward || g.Storage == "local" {
			continue
		}
		if len(m.Members) == 1 && slices.ContainsFunc(g.Sees, func(seen cluster.Seen) bool { return unanswered(s, g, seen, life(seen.Node)) }) {
			continue
		}
		return id, true
	}
	return "", false
}

func rank(s cluster.Shares, id cluster.NodeID) int {
	if g, _ := s.Of(id); g.Joiner {
		return 1
	}
	return 0
}

// unanswered tells whether a node whose nonce g reads may still be at work
// there: it lives (or may, for all that is known) and has not said that it does
// not read g's.
func unanswered(s cluster.Shares, g cluster.Sighting, seen cluster.Seen, l Life) bool {
	other, ok := s.Of(seen.Node)
	if ok && other.MissesNonce(cluster.Seen{Node: g.Node, Nonce: g.Nonce}) {
		return false
	}
	return !l.Dead && !l.Unfit
}
