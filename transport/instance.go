package transport

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/gatesync/gatesync/cluster"
)

// Instance is one run of one node: what it says of itself in every handshake,
// so that the others notice a copy of its data directory, and one that was put
// back from an old backup. A caller says it as one more name in ALPN (which
// the handshake signs, and older programs pass over), a server in its greeting.
type Instance struct {
	// Incarnation is the life of the cluster that the node knows; 0 reads as 1.
	Incarnation cluster.Incarnation `json:"incarnation"`
	// Start counts the starts of the data directory, this one included.
	Start uint64 `json:"start"`
	// Nonce is random, of this run; "" for a command that only asks.
	Nonce string `json:"nonce"`
	// Term and Last are the newest term and the index of the last entry that
	// the node's log held at its start.
	Term uint64 `json:"term"`
	Last uint64 `json:"last"`
}

// NewNonce makes a run's nonce.
func NewNonce() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

const instancePrefix = "gatesync-instance/1:"

func (i Instance) incarnation() cluster.Incarnation {
	return max(i.Incarnation, cluster.FirstIncarnation)
}

// alpn writes the instance as a name for ALPN.
func (i Instance) alpn() string {
	return fmt.Sprintf("%s%d.%d.%s.%d.%d", instancePrefix, uint64(i.incarnation()), i.Start, i.Nonce, i.Term, i.Last)
}

// parseInstance finds the instance among the names that a caller offers. What
// it cannot read counts as absent: a node of the first incarnation that
// nothing more is known of.
func parseInstance(protos []string) (i Instance) {
	for _, p := range protos {
		text, ok := strings.CutPrefix(p, instancePrefix)
		if !ok {
			continue
		}
		f := strings.Split(text, ".")
		if len(f) != 5 {
			return Instance{}
		}
		var err error
		number := func(s string) (n uint64) {
			if err == nil {
				n, err = strconv.ParseUint(s, 10, 64)
			}
			return n
		}
		i = Instance{Incarnation: cluster.Incarnation(number(f[0])), Start: number(f[1]), Nonce: f[2], Term: number(f[3]), Last: number(f[4])}
		if err != nil {
			return Instance{}
		}
	}
	return i
}

// IncarnationError: the two ends belong to different lives of the cluster.
type IncarnationError struct {
	Addr         string
	Node         cluster.NodeID // who says so
	Ours, Theirs cluster.Incarnation
	Proven       bool // that theirs exists: the cluster's CA has signed it
}

// Newer tells whether the other end says that its life is the newer one.
func (e *IncarnationError) Newer() bool { return e.Theirs > e.Ours }

// Yield tells whether it is this node that has to yield.
func (e *IncarnationError) Yield() bool { return e.Newer() && e.Proven }

func (e *IncarnationError) Error() string {
	if e.Newer() && !e.Proven {
		return fmt.Sprintf("%s at %s says that it belongs to incarnation %s of the cluster, this node belongs to incarnation %s, and the cluster's CA has not signed that: it is not believed. If the cluster was recovered there, install the version of gatesync that runs here there too; with certificates of an own PKI, which prove no such thing, bring this node over: "+cluster.JoinAgain+". If not, stop that daemon", e.Node, e.Addr, e.Theirs, e.Ours)
	}
	if e.Yield() {
		return fmt.Sprintf("%s belongs to incarnation %s of the cluster, this node to incarnation %s: the cluster was recovered without it; it rejoins by itself", e.Addr, e.Theirs, e.Ours)
	}
	return fmt.Sprintf("%s belongs to incarnation %s of the cluster, this node to incarnation %s: that node was told, and rejoins by itself", e.Addr, e.Theirs, e.Ours)
}

// TwinError: another run of this node's data directory is or was there.
type TwinError struct {
	Addr  string         // of the member that said so
	Node  cluster.NodeID // that member
	Other string         // where the other run is, "" where that is not known
	Alive bool           // it runs now; else it ran after the state that this one began with
}

func (e *TwinError) Error() string {
	where := e.Other
	if where == "" {
		where = "an unknown address"
	}
	if e.Alive {
		return fmt.Sprintf("another daemon with this node's identity runs at %s (says %s): this data directory or that one is a copy, and only one may run. The one that was there first goes on. Remove this copy; for a further node join it with a new data directory", where, e.Addr)
	}
	return fmt.Sprintf("another daemon with this node's identity ran at %s since this data directory was last used (says %s): this is a copy, or was put back from an older state. It may not come back as its old self. If the other one is still in use, remove this copy. Else "+cluster.ReplaceSelf, where, e.Addr)
}

// WentBackError: this node's log holds less than it once told the others.
type WentBackError struct {
	Addr string         // of the member that said so
	Node cluster.NodeID // that member
}

func (e *WentBackError) Error() string {
	return fmt.Sprintf("this node's log ends before what it told %s earlier: the data directory was put back from an older state (a backup, a snapshot of the machine), or its disk lost what it had flushed. It may have voted and acknowledged since, so it may not come back as its old self: "+cluster.ReplaceSelf, e.Addr)
}
