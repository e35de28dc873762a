package node

import (
	"errors"
	"sync"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// leaderless is how long a node that has not read its log looks for a leader of
// its own life, before it believes that the cluster was recovered without it: a
// leader calls within half a heartbeat.
const leaderless = 5 * time.Second

// word is what this node knows of somebody who says that the cluster is in a
// newer life, or that this node may not go on as it is.
type word struct {
	life    bool // it is about a newer life
	read    bool // this node has read its log: who is a member is known
	member  bool // by the log
	removed bool // by what the log held at the start, be it not committed
	named   bool // in the address book
	// alone is for how long this node has known no leader of its own life.
	alone time.Duration
}

// doubt is why the word of that node does not count, or not yet; "" where it
// does. A removed node that was recovered while it was cut off holds the CA's
// key, too: so its word on a newer life needs more than a signature. That this
// data directory is a copy, or went back, counts at once: here it is going on
// that would be dangerous, for it may vote twice.
func (w word) doubt() string {
	switch {
	case w.read && !w.member:
		return "it is no member of the cluster"
	case w.read:
		return ""
	case w.removed:
		return "it was removed from the cluster, as this node's log says"
	case !w.life:
		return ""
	case !w.named:
		return "this node has not read its log, and does not know it"
	case w.alone < leaderless:
		return readsFirst
	}
	return ""
}

const readsFirst = "this node reads its log first"

// doubt judges who said err of this very node. One goroutine asks (heed).
func (n *Node) doubt(err error, alone time.Duration) string {
	from := speaker(err)
	_, named := n.book.address(from)
	var life *transport.IncarnationError
	return word{
		life: errors.As(err, &life), read: n.caughtUp(), member: contains(n.log.Members(), from), removed: n.began.Removed[string(from)], named: named, alone: alone,
	}.doubt()
}

// claim is what somebody said, and when.
type claim struct {
	at   time.Time
	text string
}

// speaker is the member that said something of this very node.
func speaker(err error) cluster.NodeID {
	var (
		life *transport.IncarnationError
		twin *transport.TwinError
		back *transport.WentBackError
	)
	switch {
	case errors.As(err, &life):
		return life.Node
	case errors.As(err, &twin):
		return twin.Node
	case errors.As(err, &back):
		return back.Node
	}
	return ""
}

// lifeProof proves the incarnation that this node belongs to, with the CA's key
// of its log. It is made once for each CA that signs. Safe for concurrent use.
type lifeProof struct {
	mu   sync.Mutex
	by   string // fingerprint of the CA
	text string
}

// proof is what this node shows in each handshake; "" where its log holds no
// CA key (an own PKI, or it has not received the log), and in the first life,
// which nobody doubts.
func (n *Node) proof() string {
	if n.file.incarnation() <= cluster.FirstIncarnation {
		return ""
	}
	a := n.began.Authorities
	if log := n.opened.Load(); log != nil && len(log.Authorities().Key) > 0 {
		a = log.Authorities()
	}
	if len(a.Key) == 0 {
		return ""
	}
	return n.life.of(a, n.file.Cluster, n.file.incarnation())
}

func (l *lifeProof) of(a raftstore.Authorities, clusterID string, in cluster.Incarnation) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by != a.Signing.Fingerprint {
		text, err := transport.CA{ClusterID: clusterID, Cert: a.Signing.Cert, Key: a.Key}.SignLife(in)
		if err != nil {
			return ""
		}
		l.by, l.text = a.Signing.Fingerprint, text
	}
	return l.text
}
