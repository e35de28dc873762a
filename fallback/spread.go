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
	bases = p.ours(refs, bases)
	if share != nil && len(bases) > 0 && len(share.sees(nodes)) >= shareFrom {
		bases = p.smaller(ctx, refs, bases)
	}
	plan := split(refs, bases)
	s := p.newSpreading(plan, p.layOut(share, plan, nodes), len(nodes)+1)
	s.start(nodes)
	return s.gather(ctx, append(nodes, p.self), enough)
}

// spreading is one Spread on its way: a goroutine for each node, one that
// lays on the share, and one that makes deltas. They go on when nobody waits for their answers any more.
type spreading struct {
	push    *Push
	plan    []part
	lay     *laying // nil: nothing goes over a share
	answers chan answer
	ctx     context.Context // of the transfers
	cancel  context.CancelFunc
	running atomic.Int64
	holds   bool // the deltas that are made for it
}

func (p *Push) newSpreading(plan []part, lay *laying, nodes int) *spreading {
	s := &spreading{push: p, plan: plan, lay: lay, answers: make(chan answer, nodes)} // room for all: nobody waits to deliver
	s.ctx, s.cancel = context.WithCancel(p.ctx)
	return s
}

// start starts everything: the own store's flush, the laying, each transfer.
func (s *spreading) start(nodes []cluster.NodeID) {
	p := s.push
	s.running.Store(1) // start itself, so that nothing ends before all has begun
	defer s.ended()
	if s.lay != nil && !s.spawn(func() { s.lay.run(s.ctx, s.plan, p.store.Open) }) {
		s.cancel() // closed: nobody shall wait for what is not laid
	}
	if prepares(s.plan) && len(nodes) > 0 {
		s.holds = true
		p.deltas.hold()
		if !s.spawn(func() { p.prepare(s.ctx, s.plan) }) {
			s.cancel()
		}
	}
	s.ask(p.self, func() (string, error) { return p.store.ID(), p.store.Flush() })
	for _, node := range nodes {
		s.ask(node, func() (string, error) {
			store, err := p.toPeer(s.ctx, node, s.plan, s.lay)
			if err != nil {
				s.lay.missed()
			}
			return store, err
		})
	}
}

// ask has a node's part done and answered.
func (s *spreading) ask(node cluster.NodeID, do func() (string, error)) {
	if !s.spawn(func() {
		store, err := do()
		s.answers <- answer{node, store, err}
	}) {
		s.answers <- answer{node: node, err: ErrClosed}
	}
}

func (s *spreading) spawn(do func()) bool {
	s.running.Add(1)
	begun := s.push.spawn(func() {
		defer s.ended()
		do()
	})
	if !begun {
		s.ended()
	}
	return begun
}

// ended is called at the end of each goroutine; the last one tidies up.
func (s *spreading) ended() {
	if s.running.Add(-1) == 0 {
		s.cancel()
		s.lay.end()
		if s.holds {
			s.push.deltas.letGo()
		}
	}
}

// gather waits for answers, one of each of the nodes, until there are enough.
func (s *spreading) gather(ctx context.Context, nodes []cluster.NodeID, enough func([]manifest.Receipt) bool) ([]manifest.Receipt, error) {
	var receipts []manifest.Receipt
	failed := map[cluster.NodeID]error{}
	for range nodes {
		select {
		case a := <-s.answers:
			if a.err != nil {
				failed[a.node] = a.err
				continue
			}
			receipts = append(receipts, manifest.Receipt{Node: string(a.node), Store: a.store})
			if enough != nil && enough(receipts) {
				return receipts, nil
			}
		case <-ctx.Done():
			s.cancel()
			for _, n := range nodes {
				if failed[n] == nil && !slices.ContainsFunc(receipts, func(r manifest.Receipt) bool { return r.Node == string(n) }) {
					failed[n] = context.Cause(ctx)
				}
			}
			return receipts, &ShortError{Have: receipts, Failed: failed, Err: ctx.Err()}
		}
	}
	s.cancel() // whoever still lays lays for nobody
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

// smaller are the bases of which a delta is smaller than the content; the
// others' content may go over a share.
func (p *Push) smaller(ctx context.Context, refs []manifest.BlobRef, bases manifest.Bases) manifest.Bases {
	some := manifest.Bases{}
	for _, ref := range refs {
		if m := p.deltas.get(ctx, ref, bases[ref.Digest]); m != nil {
			some[ref.Digest] = bases[ref.Digest]
			p.deltas.release(m)
		}
	}
	return some
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
