package node

import (
	"github.com/gatesync/gatesync/cluster"
)

// wireFollowers makes the two ends of a follower's stream; every node has both.
func (n *Node) wireFollowers() {
	n.wasFollower.Store(n.file.Follower)
	n.followerAt.Store(n.file.FollowerAt)
	n.following = &following{
		self: n.file.Node, log: n.log, follows: n.follows, candidates: n.others, learn: n.book.learn, remember: n.rememberRole, refused: n.notTold, dial: n.server, slog: n.slog,
	}
	up := n.parent
	n.forward.upstream.Store(&up)
	n.feeding = &feeding{
		self: n.file.Node, log: n.log, path: n.pathDown, unread: n.strangers, address: n.book.address, slog: n.slog,
	}
}

// follows tells whether this node is a follower: so says the log, or, while that
// is not read as far as it was before, what was kept of it, or, while it is not
// read at all, who let it in. Who became one while it was away is told by another
// member: its log does not reach so far, and Raft does not know it any more.
func (n *Node) follows() bool {
	if n.toldFollower.Load() {
		return true
	}
	is, known, _ := n.roleInLog()
	return is || !known && n.wasFollower.Load()
}

// roleInLog is what the log says of this node, and up to which entry it is read.
// A log that was opened anew begins at its snapshot: what that says of the role
// may be long past, and nobody would feed a node that believed it.
func (n *Node) roleInLog() (follower, known bool, at uint64) {
	_, at, _ = n.log.Extent()
	if at < n.followerAt.Load() {
		return false, false, at
	}
	follower = n.log.Follows(n.file.Node)
	return follower, follower || contains(n.log.Members(), n.file.Node), at
}

// rememberRole keeps on disk what the log says of this node: after a start it
// must know by which way the log comes, before it has read any of it.
func (n *Node) rememberRole() error {
	is, known, at := n.roleInLog()
	if is && known {
		n.toldFollower.Store(false)
	}
	if !known || is == n.wasFollower.Load() {
		return nil
	}
	if _, now, _ := n.log.Extent(); now != at {
		return nil // which of them said it? The next call sees to it
	}
	n.fileMu.Lock()
	defer n.fileMu.Unlock()
	n.file.Follower, n.file.FollowerAt = is, at+1 // which may be what the machine is at already
	if err := n.dir.writeNode(n.file); err != nil {
		return err
	}
	n.wasFollower.Store(is)
	n.followerAt.Store(at + 1)
	return nil
}

// told takes another member's word that this node is a follower. Where Raft
// reaches this node, its own log will say it; and a parent that is asked for
// nothing says so (notTold).
func (n *Node) told() {
	if _, led := n.log.Leader(); !led && !n.follows() {
		n.toldFollower.Store(true)
	}
}

// notTold: a parent's log says that this node is no follower.
func (n *Node) notTold() { n.toldFollower.Store(false) }

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
