package node

import (
	"sync/atomic"

	"github.com/gatesync/gatesync/cluster"
)

// roleLog is what ownRole asks the log.
type roleLog interface {
	Follows(id cluster.NodeID) bool
	Members() []cluster.Member
	Extent() (term, applied, last uint64)
	Leader() (id cluster.NodeID, known bool)
}

// ownRole knows whether this node is a follower: so says the log, or, while that
// is not read as far as it was before, what was kept of it, or, while it is not
// read at all, who let this node in. Who became one while it was away is told by
// another member: its log does not reach so far, and Raft does not know it any
// more. Anybody may ask; one goroutine at a time remembers.
type ownRole struct {
	self cluster.NodeID
	log  roleLog
	keep func(follower bool, at uint64) error // on disk

	kept atomic.Bool   // what is on disk …
	at   atomic.Uint64 // … as of this entry of the log, 0: as it came in
	told atomic.Bool   // another member says that this node is a follower
}

// open begins with what is on disk, before anybody asks.
func (r *ownRole) open(file nodeFile, log roleLog, keep func(follower bool, at uint64) error) {
	r.self, r.log, r.keep = file.Node, log, keep
	r.kept.Store(file.Follower)
	r.at.Store(file.FollowerAt)
}

// follows tells whether this node is a follower. It is asked for each pulse to each
// child, and reads the list of members only where it has to.
func (r *ownRole) follows() bool {
	if r.told.Load() {
		return true
	}
	is, read, _ := r.inLog()
	return is || r.kept.Load() && !(read && r.inRaft())
}

// inLog is what the log says of this node, up to which entry it is read, and whether
// that is as far as it was before. A log that was opened anew begins at its snapshot:
// what that says of the role may be long past, and nobody would feed a node that
// believed it.
func (r *ownRole) inLog() (follower, read bool, at uint64) {
	_, at, _ = r.log.Extent()
	read = at >= r.at.Load()
	return read && r.log.Follows(r.self), read, at
}

func (r *ownRole) inRaft() bool { return contains(r.log.Members(), r.self) }

// remember keeps on disk what the log says of this node: after a start it must know
// by which way the log comes, before it has read any of it.
func (r *ownRole) remember() error {
	is, read, at := r.inLog()
	if is {
		r.told.Store(false)
	}
	if is == r.kept.Load() || !read || !is && !r.inRaft() {
		return nil
	}
	if _, now, _ := r.log.Extent(); now != at {
		return nil // which of them said it? The next call sees to it
	}
	at++ // which may be what the machine is at already
	if err := r.keep(is, at); err != nil {
		return err
	}
	r.kept.Store(is)
	r.at.Store(at)
	return nil
}

// hear takes another member's word that this node is a follower. Where Raft reaches
// this node, its own log will say it; and a parent that is asked for nothing says so
// (deny).
func (r *ownRole) hear() {
	if _, led := r.log.Leader(); !led && !r.follows() {
		r.told.Store(true)
	}
}

// deny: a parent's log says that this node is no follower.
func (r *ownRole) deny() { r.told.Store(false) }
