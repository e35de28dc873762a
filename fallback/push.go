package fallback

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Reader reads one blob, from its beginning to its end. A reader that finds
// the content damaged fails instead of ending. What is read at a place is not
// verified.
type Reader interface {
	io.Reader
	io.ReaderAt
	io.Closer
}

// Store is what a carrier needs of a blob store. All methods are safe for
// concurrent use. *blob.Store becomes one through StoreOf.
type Store interface {
	Has(manifest.Digest) bool                         // whole, perhaps not yet durable
	Size(manifest.Digest) (int64, bool)               // of a blob that it has
	Open(manifest.Digest) (Reader, error)             // the caller closes
	PutKnown(ref manifest.BlobRef, r io.Reader) error // verifies size and digest
	// Begun tells how much of the beginning of a blob is here, of which a PutKnown
	// or PutRest was cut off; PutRest goes on behind that.
	Begun(manifest.Digest) int64
	PutRest(ref manifest.BlobRef, begun int64, r io.Reader) error
	Flush() error // everything put before is durable after
	ID() string   // a store that was wiped is another store
}

// Peers finds the connection to a peer; it may be shared by everybody.
type Peers interface {
	Conn(ctx context.Context, peer cluster.NodeID) (grpc.ClientConnInterface, error)
}

// Carrier is a way bytes travel between blob stores.
type Carrier interface {
	// Spread makes blobs durable on other nodes; see Push.Spread.
	Spread(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases, to []cluster.NodeID, enough func([]manifest.Receipt) bool) ([]manifest.Receipt, error)
	// Fetch brings blobs into the own store; see Push.Fetch.
	Fetch(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases, from []cluster.NodeID, done func(manifest.Digest, error)) error
}

// Push is the carrier that needs nothing but connections: it streams content
// from store to store. All methods are safe for concurrent use.
type Push struct {
	self     cluster.NodeID
	store    Store
	peers    Peers
	log      *slog.Logger
	limits   limits
	pace     pace
	arrivals arrivals
	deltas   *deltas
	stats    counters
	observer Observer
	share    *Share // that peers' parcels are read from; nil: none

	ctx    context.Context // until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // guards what follows, and wg.Add against Close's Wait
	closed bool
	lanes  map[laneKey]*lane
	behind map[cluster.NodeID]int  // transfers under way
	calls  map[callKey]int         // streams that peers have open here
	reads  map[cluster.NodeID]bool // peers that read deltas
}

// Limit bounds what is sent of content, in bytes a second to all other nodes
// together; 0: not at all. What is small goes first and counts. It is called before
// the Push is used.
func (p *Push) Limit(perSecond int64) { p.pace = newPace(perSecond) }

// NewPush returns the carrier of the node self; log may be nil. Nothing runs
// before it is used; Close ends it.
func NewPush(self cluster.NodeID, store Store, peers Peers, log *slog.Logger) *Push {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Push{
		self: self, store: store, peers: peers, log: log, limits: defaultLimits(), deltas: newDeltas(store), reads: map[cluster.NodeID]bool{},
		lanes: map[laneKey]*lane{}, behind: map[cluster.NodeID]int{}, calls: map[callKey]int{},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Scratch names the directory where large deltas lie while they are needed, in
// files without names; by default the system's. Call it before Register.
func (p *Push) Scratch(dir string) { p.deltas.dir = dir }

// Register serves pb.Content, the receiving end, from the same store. Callers
// must have been authenticated: whoever may call may fill the disk.
func (p *Push) Register(s grpc.ServiceRegistrar) { pb.RegisterContentServer(s, &server{push: p}) }

// Close cuts all transfers, in both directions, and waits for them.
func (p *Push) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.wg.Wait()
	p.deltas.end()
	return nil
}

// readsDeltas notes or forgets that a peer reads deltas.
func (p *Push) readsDeltas(peer cluster.NodeID, does bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if does {
		p.reads[peer] = true
	} else {
		delete(p.reads, peer)
	}
}

func (p *Push) deltasTo(peer cluster.NodeID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reads[peer]
}

// enter counts one more thing that Close waits for; false once closed.
func (p *Push) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Add(1)
	return true
}

// spawn runs f in a goroutine that Close waits for; false once closed.
func (p *Push) spawn(f func()) bool {
	if !p.enter() {
		return false
	}
	go func() {
		defer p.wg.Done()
		f()
	}()
	return true
}

// begun tells how much of a large blob is here already.
func (p *Push) begun(ref manifest.BlobRef) int64 {
	if ref.Size <= smallBlob {
		return 0
	}
	if n := p.store.Begun(ref.Digest); n < ref.Size {
		return n
	}
	return 0
}

// inVain notes that a blob has to come again, whole.
func (p *Push) inVain(peer cluster.NodeID, d manifest.Digest, why error) {
	p.stats.useless.Add(1)
	p.log.Debug("content has to come whole", "peer", string(peer), "blob", d.Short(), "error", why)
}

// Moved counts blobs, the bytes of their content, and those that travelled for it.
type Moved struct{ Blobs, Bytes, Wire int64 }

// Traffic counts what has moved, and what of it as deltas.
type Traffic struct {
	Moved
	Deltas Moved
}

// Plus adds up.
func (m Moved) Plus(o Moved) Moved {
	return Moved{Blobs: m.Blobs + o.Blobs, Bytes: m.Bytes + o.Bytes, Wire: m.Wire + o.Wire}
}

// Minus takes off what was counted before.
func (m Moved) Minus(o Moved) Moved {
	return Moved{Blobs: m.Blobs - o.Blobs, Bytes: m.Bytes - o.Bytes, Wire: m.Wire - o.Wire}
}

// Plus adds up.
func (t Traffic) Plus(o Traffic) Traffic {
	return Traffic{t.Moved.Plus(o.Moved), t.Deltas.Plus(o.Deltas)}
}

// Stats counts what a Push has moved since it was made.
type Stats struct {
	Sent     Traffic // pushed to peers
	Received Traffic // pushed here by peers
	Fetched  Traffic // fetched from peers
	Served   Traffic // fetched by peers
	Skipped  int64   // blobs that were offered and that the peer held already
	Useless  int64   // blobs that came as a delta or as a rest, and had to come whole
	Failed   int64   // transfers to a peer that failed
}

// Stats returns the counters.
func (p *Push) Stats() Stats {
	c := &p.stats
	return Stats{
		Sent: c.sent.read(), Received: c.received.read(), Fetched: c.fetched.read(), Served: c.served.read(),
		Skipped: c.skipped.Load(), Useless: c.useless.Load(), Failed: c.failed.Load(),
	}
}

type counters struct {
	sent, received, fetched, served traffic
	skipped, useless, failed        atomic.Int64
}

type traffic struct{ all, deltas moved }

type moved struct{ blobs, bytes, wire atomic.Int64 }

// carried counts what travels.
func (t *traffic) carried(wire int, delta bool) {
	t.all.wire.Add(int64(wire))
	if delta {
		t.deltas.wire.Add(int64(wire))
	}
}

// arrived counts a blob of which all has travelled.
func (t *traffic) arrived(bytes int64, delta bool) {
	t.all.add(1, bytes, 0)
	if delta {
		t.deltas.add(1, bytes, 0)
	}
}

func (t *traffic) read() Traffic { return Traffic{t.all.read(), t.deltas.read()} }

func (m *moved) add(blobs, bytes, wire int64) {
	m.blobs.Add(blobs)
	m.bytes.Add(bytes)
	m.wire.Add(wire)
}

func (m *moved) read() Moved {
	return Moved{Blobs: m.blobs.Load(), Bytes: m.bytes.Load(), Wire: m.wire.Load()}
}
