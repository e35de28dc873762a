package node

import (
	"context"
	"slices"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

// memberSet is the membership as the transport asks for it at each handshake
// and call: immutable, replaced as a whole.
type memberSet struct {
	ids    map[cluster.NodeID]bool
	byName map[string]cluster.NodeID
	whole  bool // the log is read: who is not in it was removed
}

// isMember refuses removed nodes. While the log is not read, a certificate of
// the cluster is enough: it could not be read otherwise.
func (n *Node) isMember(id cluster.NodeID) bool {
	set := n.members.Load()
	return set == nil || !set.whole || set.ids[id]
}

// lookup finds a node by name, for certificates of an own PKI.
func (n *Node) lookup(name string) (cluster.NodeID, bool) {
	if set := n.members.Load(); set != nil {
		if id, ok := set.byName[name]; ok {
			return id, true
		}
	}
	for _, m := range n.book.members() {
		if m.Name == name {
			return m.ID, true
		}
	}
	return "", false
}

// followMembers keeps the set and the address book in step with the log.
func (n *Node) followMembers(ctx context.Context) error {
	ch, stop := n.log.Watch()
	defer stop()
	// That the log is read is no change of it that somebody would tell of.
	look := time.NewTicker(currentLook)
	defer look.Stop()
	whole := look.C
	var last []cluster.Member
	for {
		set, all := n.members.Load(), n.log.Members()
		if !slices.Equal(all, last) || set == nil || !set.whole && len(all) > 0 && n.caughtUp() {
			last = all
			n.takeMembers(all)
			if n.members.Load().whole {
				whole = nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ch:
		case <-whole:
		}
	}
}

func (n *Node) takeMembers(all []cluster.Member) {
	set := &memberSet{ids: map[cluster.NodeID]bool{}, byName: map[string]cluster.NodeID{}, whole: n.caughtUp() && len(all) > 0}
	for _, m := range all {
		set.ids[m.ID], set.byName[m.Name] = true, m.ID
	}
	n.members.Store(set)
	n.server.Prune() // whoever was removed is cut off in the middle of a word
	n.book.learn(all...)
	if set.whole {
		n.book.keep(func(id cluster.NodeID) bool { return set.ids[id] || id == n.file.Node })
		n.instances.Forget(func(id cluster.NodeID) bool { return set.ids[id] })
	}
}

// removed tells whether the cluster has removed this node.
func (n *Node) removed() bool {
	set := n.members.Load()
	return set != nil && set.whole && !set.ids[n.file.Node]
}

// caughtUp tells whether the log was read up to where it stood when this
// daemon started. A quorum that is lost later does not undo that: what was
// committed is known.
func (n *Node) caughtUp() bool {
	if !n.read.Load() && n.log.CaughtUp() {
		n.read.Store(true)
	}
	return n.read.Load()
}

// currentLook is how often current looks: being caught up is no change of the
// log that somebody would tell of.
const currentLook = 50 * time.Millisecond

// current waits until this node knows what is committed, and every tree of its
// settings is open.
func (n *Node) current(ctx context.Context) error {
	for !n.caughtUp() || !n.trees.complete() {
		if err := wait(ctx, currentLook); err != nil {
			return err
		}
	}
	return nil
}
