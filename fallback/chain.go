package fallback

import (
	"context"
	"sync"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
)

// Chain is the carrier of a node that has a share: content goes over the share
// where it can, else the push takes it. Nobody chooses and nobody notices. The
// offer of a batch names the parcel on the share; who cannot read it answers
// with what it needs, as to any offer, and gets it pushed.
type Chain struct {
	share *Share
	push  *Push
}

var _ Carrier = (*Chain)(nil)

// NewChain puts a share before a push; before the push is registered. Both are
// the caller's to run and close.
func NewChain(share *Share, push *Push) *Chain {
	push.share = share
	return &Chain{share: share, push: push}
}

// Spread implements Carrier, see Push.Spread.
func (c *Chain) Spread(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases, to []cluster.NodeID, enough func([]manifest.Receipt) bool) ([]manifest.Receipt, error) {
	return c.push.spread(ctx, blobs, bases, to, enough, c.share)
}

// Fetch implements Carrier. Who fetches was not there when the content was laid
// down, and by now the others have taken it: it is pushed.
func (c *Chain) Fetch(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases, from []cluster.NodeID, done func(manifest.Digest, error)) error {
	return c.push.Fetch(ctx, blobs, bases, from, done)
}

// laying puts the batches of one Spread on the share, ahead of their offers.
type laying struct {
	share *Share
	seers map[cluster.NodeID]bool // are offered parcels

	mu    sync.Mutex
	names []string // that are to be released
	short bool     // somebody did not take something
}

// layOut decides what is laid on a share, nil where nothing is.
func (p *Push) layOut(share *Share, plan []part, nodes []cluster.NodeID) *laying {
	if share == nil || plan[0].class == eager {
		return nil
	}
	l := &laying{share: share, seers: map[cluster.NodeID]bool{}}
	for _, id := range share.sees(nodes) {
		l.seers[id] = true
	}
	if len(l.seers) < shareFrom {
		return nil
	}
	some := false
	for _, part := range plan {
		for _, b := range part.batches {
			if len(b.bases) == 0 { // a delta is less than what everybody reads
				b.set = make(chan struct{})
				some = true
			}
		}
	}
	if !some {
		return nil
	}
	return l
}

// load is one batch of a Spread, for all peers.
type load struct {
	refs   []manifest.BlobRef
	bases  manifest.Bases // of what may become deltas; none of a load that is laid
	set    chan struct{}  // closed when parcel is decided, or the deltas are made; nil: neither
	parcel string         // "" where it could not be laid
}

// run lays all batches, in their order; the first failure leaves the rest to
// the push.
func (l *laying) run(ctx context.Context, plan []part, open func(manifest.Digest) (Reader, error)) {
	failed := false
	for _, part := range plan {
		for _, b := range part.batches {
			if len(b.bases) > 0 {
				continue
			}
			if !failed {
				name, err := l.share.lay(ctx, b.refs, open)
				if failed = err != nil; !failed {
					l.mu.Lock()
					l.names = append(l.names, name)
					l.mu.Unlock()
					b.parcel = name
				}
			}
			close(b.set)
		}
	}
}

// seen tells whether a peer is offered parcels.
func (l *laying) seen(peer cluster.NodeID) bool { return l != nil && l.seers[peer] }

// missed notes that a peer has not taken everything.
func (l *laying) missed() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.short = true
}

// end releases what was laid; every offer has been answered, and run has ended.
func (l *laying) end() {
	if l == nil {
		return
	}
	l.mu.Lock()
	names, short := l.names, l.short
	l.names = nil
	l.mu.Unlock()
	for _, name := range names {
		l.share.release(name, !short)
	}
}
