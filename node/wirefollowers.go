package node

import (
	"github.com/gatesync/gatesync/cluster"
)

// wireFollowers makes the two ends of a follower's stream; every node has both.
func (n *Node) wireFollowers() {
	n.following = &following{
		self: n.file.Node, log: n.log, follows: n.follows, candidates: n.others, learn: n.book.learn, remember: n.ownRole.remember, refused: n.ownRole.deny, dial: n.server, slog: n.slog,
	}
	up := n.parent
	n.forward.upstream.Store(&up)
	n.feeding = &feeding{
		self: n.file.Node, log: n.log, path: n.pathDown, unread: n.strangers, address: n.book.address, slog: n.slog,
	}
}

// follows tells whether this node is a follower.
func (n *Node) follows() bool { return n.ownRole.follows() }

// keepRole writes to node.json what the log says of this node.
func (n *Node) keepRole(follower bool, at uint64) error {
	n.fileMu.Lock()
	defer n.fileMu.Unlock()
	n.file.Follower, n.file.FollowerAt = follower, at
	return n.dir.writeNode(n.file)
}

// strangers tells that the log is not read: who is a member is not known.
func (n *Node) strangers() bool {
	set := n.members.Load()
	return set == nil || !set.whole
}

func (n *Node) roleOfSelf() cluster.Role {
	if n.follows() {
		return cluster.Follower
	}
	return ""
}

// pathDown is the path from a member of Raft down to this node; false where
// nobody feeds this follower.
func (n *Node) pathDown() ([]string, bool) {
	self := string(n.file.Node)
	if !n.follows() {
		return []string{self}, true
	}
	_, path, ok := n.following.upstream()
	return append(path, self), ok
}

// parent is who feeds this follower.
func (n *Node) parent() (cluster.NodeID, bool) {
	if !n.follows() {
		return "", false
	}
	id, _, ok := n.following.upstream()
	return id, ok
}

// place is this node's part in the tree of followers.
func (n *Node) place() place {
	return place{
		ofSelf:     n.follows,
		ofMember:   n.log.Follows,
		fedBy:      n.parent,
		disowned:   func() bool { return n.follows() && n.following.disowned() },
		membership: func(id cluster.NodeID) bool { return n.strangers() || n.isMember(id) },
	}
}

// spokenTo is whom this node says hello to: members of Raft to each other,
// followers to their parent.
func (n *Node) spokenTo() []cluster.Member {
	others := n.others()
	follows := n.follows()
	parent, _, _ := n.following.upstream()
	out := others[:0:0]
	for _, m := range others {
		if follows && m.ID == parent || !follows && m.Role != cluster.Follower {
			out = append(out, m)
		}
	}
	return out
}
