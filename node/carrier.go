package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/fallback"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/raftstore"
)

// spreadWithin bounds the wait for receipts; the syncer tries again, and what
// arrived meanwhile need not travel twice.
const spreadWithin = 30 * time.Second

// carrier is the syncer's view of how bytes travel: it says to whom and how
// many are enough. Safe for concurrent use.
type carrier struct {
	self    cluster.NodeID
	members membership
	alive   func(cluster.NodeID) bool
	way     fallback.Carrier
	// Of a follower: whether this node is one, who feeds it, and whether an error
	// says that a peer does not hold a blob.
	follows  func() bool
	upstream func() (parent cluster.NodeID, path []string, ok bool)
	missing  func(error) bool

	mu     sync.Mutex
	asking map[manifest.Digest]int // being fetched now, by how many
}

// Spread makes content durable on a majority of the voters. It goes to every
// live member of Raft, voter or not: each of them needs it in a moment.
func (c *carrier) Spread(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases) ([]manifest.Receipt, error) {
	voters := map[string]string{} // id → store
	var to []cluster.NodeID
	reachable := 0
	for _, m := range c.members.Members() {
		alive := c.alive(m.ID)
		if m.Role == cluster.Voter {
			voters[string(m.ID)] = m.Store
			if alive {
				reachable++
			}
		}
		if alive && m.ID != c.self && m.Role != cluster.Follower { // which asks for it, and cannot be dialed
			to = append(to, m.ID)
		}
	}
	need := raftstore.Majority(len(voters))
	if reachable < need {
		return nil, fmt.Errorf("content cannot reach a majority of the voters, %d of %d are alive: %w", reachable, len(voters), cluster.ErrNoQuorum)
	}
	ctx, cancel := context.WithTimeout(ctx, spreadWithin)
	defer cancel()
	return c.way.Spread(ctx, blobs, bases, to, func(receipts []manifest.Receipt) bool {
		return majority(voters, need, receipts)
	})
}

// majority counts the distinct voters whose present store gave a receipt.
func majority(voters map[string]string, need int, receipts []manifest.Receipt) bool {
	have := map[string]bool{}
	for _, r := range receipts {
		if store, ok := voters[r.Node]; ok && store == r.Store {
			have[r.Node] = true
		}
	}
	return len(have) >= need
}

// Fetch brings content here from whichever live members have it.
func (c *carrier) Fetch(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases, done func(manifest.Digest, error)) error {
	c.ask(blobs, 1)
	defer c.ask(blobs, -1)
	if c.follows() {
		return c.fetchUp(ctx, blobs, bases, done)
	}
	var from []cluster.NodeID
	for _, m := range c.members.Members() {
		if m.ID != c.self && m.Role != cluster.Follower && c.alive(m.ID) {
			from = append(from, m.ID)
		}
	}
	return c.way.Fetch(ctx, blobs, bases, from, done)
}

func (c *carrier) ask(blobs []manifest.BlobRef, more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking == nil {
		c.asking = map[manifest.Digest]int{}
	}
	for _, ref := range blobs {
		if c.asking[ref.Digest] += more; c.asking[ref.Digest] == 0 {
			delete(c.asking, ref.Digest)
		}
	}
}

// coming tells whether a blob is being fetched right now.
func (c *carrier) coming(d manifest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asking[d] > 0
}

// connections adapts dialing to what the carrier takes.
type connections struct{ dialer }

// Conn finds the connection to a member.
func (c connections) Conn(ctx context.Context, id cluster.NodeID) (grpc.ClientConnInterface, error) {
	return c.Dial(ctx, id)
}
