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
// the content damaged fails instead of ending.
type Reader interface {
	io.Reader
	io.Closer
}

// Store is what a carrier needs of a blob store. All methods are safe for
// concurrent use. *blob.Store becomes one through StoreOf.
type Store interface {
	Has(manifest.Digest) bool                         // whole, perhaps not yet durable
	Size(manifest.Digest) (int64, bool)               // of a blob that it has
	Open(manifest.Digest) (Reader, error)             // the caller closes
	PutKnown(ref manifest.BlobRef, r io.Reader) error // verifies size and digest
	Flush() error                                     // everything put before is durable after
	ID() string                                       // a store that was wiped is another store
}

// Peers finds the connection to a peer; it may be shared by everybody.
type Peers interface {
	Conn(ctx context.Context, peer cluster.NodeID) (grpc.ClientConnInterface, error)
}

// Carrier is a way bytes travel between blob stores.
type Carrier interface {
	// Spread makes blobs durable on other nodes; see Push.Spread.
	Spread(ctx context.Context, blobs []manifest.BlobRef, to []cluster.NodeID, enough func([]manifest.Receipt) bool) ([]manifest.Receipt, error)
	// Fetch brings blobs into the own store; see Push.Fetch.
	Fetch(ctx context.Context, blobs []manifest.BlobRef, from []cluster.NodeID, done func(manifest.Digest, error)) error
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
	stats    counters
	observer Observer
	share    *Share // that peers' parcels are read from; nil: none

	ctx    context.Context // until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // guards what follows, and wg.Add against Close's Wait
	closed bool
	lanes  map[laneKey]*lane
	behind map[cluster.NodeID]int // transfers under way
	calls  map[callKey]int        // streams that peers have open here
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
		self: self, store: store, peers: peers, log: log, limits: defaultLimits(),
		lanes: map[laneKey]*lane{}, behind: map[cluster.NodeID]int{}, calls: map[callKey]int{},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

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
	return nil
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

// Traffic counts blobs and their bytes.
type Traffic struct{ Blobs, Bytes int64 }

// Stats counts what a Push has moved since it was made.
type Stats struct {
	Sent     Traffic // pushed to peers
	Received Traffic // pushed here by peers
	Fetched  Traffic // fetched from peers
	Served   Traffic // fetched by peers
	Skipped  int64   // blobs that were offered and that the peer held already
	Failed   int64   // transfers to a peer that failed
}

// Stats returns the counters.
func (p *Push) Stats() Stats {
	c := &p.stats
	return Stats{
		Sent: c.sent.read(), Received: c.received.read(), Fetched: c.fetched.read(), Served: c.served.read(),
		Skipped: c.skipped.Load(), Failed: c.failed.Load(),
	}
}

type counters struct {
	sent, received, fetched, served traffic
	skipped, failed                 atomic.Int64
}

type traffic struct{ blobs, bytes atomic.Int64 }

func (t *traffic) add(blobs int, bytes int64) {
	t.blobs.Add(int64(blobs))
	t.bytes.Add(bytes)
}

func (t *traffic) read() Traffic { return Traffic{Blobs: t.blobs.Load(), Bytes: t.bytes.Load()} }
