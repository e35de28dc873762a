package linear

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// link is one direction between two nodes: who calls whom.
type link struct{ from, to cluster.NodeID }

// how a link works now.
type how int

const (
	fine    how = iota
	refuses     // no connection comes about, and those that stand break
	swallow     // connections stand, and nothing arrives
)

// network is real TCP on the loopback, by node id, and calls to the leader;
// each link can fail by itself.
type network struct {
	bg sync.WaitGroup // commands that arrive late

	mu     sync.Mutex
	rng    *rand.Rand
	addrs  map[cluster.NodeID]string
	stores map[cluster.NodeID]*raftstore.Store
	links  map[link]how
	conns  map[*conn]struct{}
	lossy  bool // commands to the leader arrive late or twice, and answers get lost
	slow   bool // every write takes its time
}

func newNetwork(seed uint64) *network {
	return &network{
		rng:   rand.New(rand.NewPCG(seed, 1)),
		addrs: map[cluster.NodeID]string{}, stores: map[cluster.NodeID]*raftstore.Store{},
		links: map[link]how{}, conns: map[*conn]struct{}{},
	}
}

// set changes how links work. A connection that has swallowed something is
// useless ever after, so what stands is broken when its link changes.
func (n *network) set(to how, links ...link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range links {
		was := n.links[l]
		n.links[l] = to
		for c := range n.conns {
			if c.link == l && (to == refuses || was == swallow) {
				_ = c.Conn.Close()
			}
		}
	}
}

func (n *network) weather(lossy, slow bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lossy, n.slow = lossy, slow
}

func (n *network) state(l link) how {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links[l]
}

// conn is a connection, as the one who dialed it holds it.
type conn struct {
	net.Conn
	link
	of *network
}

// Write swallows what the link does not carry, on both of its ways.
func (c *conn) Write(b []byte) (int, error) {
	c.of.mu.Lock()
	state, wait := c.of.links[c.link], time.Duration(0)
	if c.of.slow {
		wait = time.Duration(c.of.rng.IntN(3000)) * time.Microsecond
	}
	c.of.mu.Unlock()
	time.Sleep(wait)
	if state == swallow {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// layer is one node's raft.StreamLayer.
type layer struct {
	net.Listener
	id cluster.NodeID
	of *network
}

func (n *network) layer(id cluster.NodeID) (*layer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[id] = l.Addr().String()
	return &layer{Listener: l, id: id, of: n}, nil
}

func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	to := link{l.id, cluster.NodeID(address)}
	l.of.mu.Lock()
	addr, ok := l.of.addrs[to.to]
	state := l.of.links[to]
	l.of.mu.Unlock()
	if !ok || state == refuses {
		return nil, fmt.Errorf("no way from %s to %s", to.from, to.to)
	}
	c, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return nil, err
	}
	nc := &conn{Conn: c, link: to, of: l.of}
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	l.of.conns[nc] = struct{}{}
	return nc, nil
}

var errLost = errors.New("lost on the network")

// forwarder is the Forwarder of one node. On a lossy network a command may
// arrive long after its sender has given up, and an answer may be lost.
type forwarder struct {
	self cluster.NodeID
	of   *network
}

func (f forwarder) Forward(ctx context.Context, leader cluster.NodeID, cmd *pb.Command) (*pb.Outcome, uint64, error) {
	there := link{f.self, leader}
	f.of.mu.Lock()
	to, dice := f.of.stores[leader], 9
	if f.of.lossy {
		dice = f.of.rng.IntN(10)
	}
	late := time.Duration(f.of.rng.IntN(300)) * time.Millisecond
	f.of.mu.Unlock()
	switch state := f.of.state(there); {
	case to == nil || state == refuses:
		return nil, 0, errLost
	case state == swallow:
		<-ctx.Done()
		return nil, 0, ctx.Err()
	case dice == 0: // it arrives, late, and nobody waits for it any more
		f.of.bg.Go(func() {
			time.Sleep(late)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, _, _ = to.ApplyLocal(ctx, cmd)
		})
		return nil, 0, errLost
	}
	out, index, err := to.ApplyLocal(ctx, cmd)
	if dice == 1 || f.of.state(there) != fine {
		return nil, 0, errLost
	}
	return out, index, err
}
