package fallback

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
)

// answer is one node's part of a Spread.
type answer struct {
	node  cluster.NodeID
	store string
	err   error
}

// Spread makes blobs, which are in the own store, durable here and on the nodes
// `to`. It returns as soon as enough is true for the receipts so far (the own
// one among them, once the own store has flushed); the other transfers go on in
// the background. A nil enough waits for all. When ctx ends before that, what
// is left is given up; then, and when every node has answered without it being
// enough, the error is a *ShortError, and the receipts so far come with it.
// enough is called by the caller's goroutine. No blobs need no receipts. To whom
// holds the base of a blob only the difference is sent.
func (p *Push) Spread(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases, to []cluster.NodeID, enough func([]manifest.Receipt) bool) ([]manifest.Receipt, error) {
	return p.spread(ctx, blobs, bases, to, enough, nil)
}

// spread is Spread, over a share where there is one and it can be used.
func (p *Push) spread(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases, to []cluster.NodeID, enough func([]manifest.Receipt) bool, share *Share) ([]manifest.Receipt, error) {
	refs, err := p.held(blobs)
	if err != nil || len(refs) == 0 {
		return nil, err
	}
	nodes := others(to, p.self)
	answers := make(chan answer, len(nodes)+1) // nobody waits to deliver
	transfer, cancel := context.WithCancel(p.ctx)
	running := atomic.Int64{}
	running.Store(int64(len(nodes)) + 1)
	plan := split(refs, p.ours(refs, bases))
	lay := p.layOut(share, plan, nodes)
	begin := func(node cluster.NodeID, do func() (string, error)) {
		if !p.spawn(func() {
			store, err := do()
			answers <- answer{node, store, err}
			if running.Add(-1) == 0 {
				cancel()
				lay.end()
			}
		}) {
			answers <- answer{node: node, err: ErrClosed}
		}
	}
	begin(p.self, func() (string, error) { return p.store.ID(), p.store.Flush() })
	if prepares(plan) && len(nodes) > 0 {
		running.Add(1)
		if !p.spawn(func() {
			p.prepare(transfer, plan)
			if running.Add(-1) == 0 {
				lay.end()
			}
		}) {
			return nil, ErrClosed
		}
	}
	if lay != nil {
		running.Add(1)
		if !p.spawn(func() {
			lay.run(transfer, plan, p.store.Open)
			if running.Add(-1) == 0 {
				lay.end()
			}
		}) {
			return nil, ErrClosed
		}
	}
	for _, node := range nodes {
		begin(node, func() (string, error) {
			store, err := p.toPeer(transfer, node, plan, lay)
			if err != nil {
				lay.missed()
			}
			return store, err
		})
	}

	var receipts []manifest.Receipt
	failed := map[cluster.NodeID]error{}
	for range len(nodes) + 1 {
		select {
		case a := <-answers:
			if a.err != nil {
				failed[a.node] = a.err
				continue
			}
			receipts = append(receipts, manifest.Receipt{Node: string(a.node), Store: a.store})
			if enough != nil && enough(receipts) {
				return receipts, nil
			}
		case <-ctx.Done():
			cancel()
			for _, n := range append(nodes, p.self) {
				if failed[n] == nil && !slices.ContainsFunc(receipts, func(r manifest.Receipt) bool { return r.Node == string(n) }) {
					failed[n] = context.Cause(ctx)
				}
			}
			return receipts, &ShortError{Have: receipts, Failed: failed, Err: ctx.Err()}
		}
	}
	cancel()
	if enough == nil && len(failed) == 0 {
		return receipts, nil
	}
	return receipts, &ShortError{Have: receipts, Failed: failed}
}

// held checks that the store has what is to be sent, each once.
func (p *Push) held(blobs []manifest.BlobRef) ([]manifest.BlobRef, error) {
	seen := make(map[manifest.Digest]bool, len(blobs))
	refs := make([]manifest.BlobRef, 0, len(blobs))
	for _, ref := range blobs {
		if size, ok := p.store.Size(ref.Digest); !ok || size != ref.Size {
			return nil, &NotHeldError{Ref: ref}
		}
		if !seen[ref.Digest] {
			seen[ref.Digest] = true
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// others are the nodes without self, each once.
func others(nodes []cluster.NodeID, self cluster.NodeID) []cluster.NodeID {
	var out []cluster.NodeID
	for _, n := range nodes {
		if n != self && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// part is what goes over one lane, batch by batch.
type part struct {
	class   class
	batches []*load
}

// ours are the bases that this store holds, too.
func (p *Push) ours(refs []manifest.BlobRef, bases manifest.Bases) manifest.Bases {
	ours := manifest.Bases{}
	for _, ref := range refs {
		if base, ok := bases[ref.Digest]; ok && p.deltas.likely(ref, base) {
			ours[ref.Digest] = base
		}
	}
	return ours
}

// split decides which blobs travel together: those that may become deltas apart
// from the others, which may go over a share.
func split(refs []manifest.BlobRef, bases manifest.Bases) []part {
	var total int64
	var blobs [2][2][]manifest.BlobRef // small and large ones, without bases and with
	for _, r := range refs {
		total += r.Size
		l, k := 0, 0
		if r.Size > smallBlob {
			l = 1
		}
		if _, ok := bases[r.Digest]; ok {
			k = 1
		}
		blobs[l][k] = append(blobs[l][k], r)
	}
	if total <= eagerBytes && len(refs) <= batchBlobs {
		return []part{{class: eager, batches: []*load{{refs: refs, bases: bases}}}}
	}
	var plan []part
	for l, class := range []class{small, large} {
		p := part{class: class, batches: cutBatches(blobs[l][0])}
		for _, b := range cutBatches(blobs[l][1]) {
			b.bases = bases
			if class == large {
				b.set = make(chan struct{})
			}
			p.batches = append(p.batches, b)
		}
		if len(p.batches) > 0 {
			plan = append(plan, p)
		}
	}
	return plan
}

// prepares tells whether deltas of a plan take time to make.
func prepares(plan []part) bool {
	for _, part := range plan {
		for _, b := range part.batches {
			if part.class == large && len(b.bases) > 0 {
				return true
			}
		}
	}
	return false
}

// prepare makes the large deltas of a plan before they are offered, once for
// all peers: nobody waits for them in the middle of a stream.
func (p *Push) prepare(ctx context.Context, plan []part) {
	for _, part := range plan {
		for _, b := range part.batches {
			if part.class != large || len(b.bases) == 0 {
				continue
			}
			for _, ref := range b.refs {
				p.deltas.release(p.deltas.get(ctx, ref, b.bases[ref.Digest]))
			}
			close(b.set)
		}
	}
}

// cutBatches cuts a list so that a batch is neither long nor, unless it is one
// blob, big.
func cutBatches(refs []manifest.BlobRef) (batches []*load) {
	for len(refs) > 0 {
		n, size := 0, int64(0)
		for n < len(refs) && n < batchBlobs && (n == 0 || size+refs[n].Size <= batchBytes) {
			size += refs[n].Size
			n++
		}
		batches = append(batches, &load{refs: refs[:n:n]})
		refs = refs[n:]
	}
	return batches
}

// toPeer sends all parts to one peer and returns the id of its store.
func (p *Push) toPeer(ctx context.Context, peer cluster.NodeID, plan []part, lay *laying) (store string, err error) {
	if err := p.begin(peer); err != nil {
		return "", err
	}
	defer p.finish(peer)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the first failure gives the rest up
	results := make(chan outcome, len(plan))
	for _, part := range plan {
		go func() { // ends with ctx; each result is waited for below
			store, err := p.overLane(ctx, laneKey{peer, part.class}, part.batches, lay.seen(peer))
			results <- outcome{store, err}
		}()
	}
	for range plan {
		o := <-results
		if err == nil && o.err == nil && store != "" && store != o.store {
			o.err = errReplaced
		}
		if o.err != nil {
			if err == nil {
				err = o.err
				p.stats.failed.Add(1)
			}
			cancel()
		}
		store = o.store
	}
	return store, err
}

// overLane sends batches over one lane; the lane takes as many at a time as it
// may have open. What is laid on a share that the peer sees is offered when it
// lies there, and what may become a delta when that is made.
func (p *Push) overLane(ctx context.Context, key laneKey, batches []*load, shared bool) (store string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := p.lane(key)
	results := make(chan outcome, len(batches))
	queue := batches
	ready := false      // the first of the queue: laid, or its deltas are made; or it never will be
	for range batches { // one answer each
		var o outcome
		for waiting := true; waiting; {
			var in chan *batch // nil, and never chosen, once all are on their way
			var next *batch
			var set chan struct{}
			if len(queue) > 0 {
				in, next = l.in, &batch{refs: queue[0].refs, bases: queue[0].bases, ctx: ctx, result: results}
				if waits := queue[0].set != nil && (shared || len(next.bases) > 0); waits && !ready {
					in, set = nil, queue[0].set
				} else if waits {
					next.parcel = queue[0].parcel
				}
			}
			select {
			case <-set:
				ready = true
			case in <- next:
				queue, ready = queue[1:], false
			case o = <-results:
				waiting = false
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		if o.err == nil && store != "" && store != o.store {
			o.err = errReplaced
		}
		if o.err != nil {
			return "", o.err
		}
		store = o.store
	}
	return store, nil
}

// begin counts a transfer to a peer, unless there are too many.
func (p *Push) begin(peer cluster.NodeID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.behind[peer]; n >= maxBehind {
		return &BehindError{Peer: peer, Transfers: n}
	}
	p.behind[peer]++
	return nil
}

func (p *Push) finish(peer cluster.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.behind[peer]--; p.behind[peer] == 0 {
		delete(p.behind, peer)
	}
}
