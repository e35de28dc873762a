package fallback

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
)

// Fetch brings blobs into the own store, from any of the nodes `from`: spread
// over several, in no particular order of nodes, so that many followers do not
// all ask one; and from another one where a node lacks a blob, fails or stalls.
// What is here is not asked for, and what a peer is pushing here is waited for.
// Of content whose base is here, or whose beginning, only the rest need come.
//
// done is called once for each digest, as soon as its blob is here (or could
// not be had), never by two goroutines at once; it may be nil. What came is
// durable when Fetch returns, not yet when done is called. The error is nil
// only if all came.
func (p *Push) Fetch(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases, from []cluster.NodeID, done func(manifest.Digest, error)) error {
	if !p.enter() {
		return ErrClosed
	}
	defer p.wg.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(ErrClosed) })()

	f := newFetch(p, ctx, done, others(from, p.self))
	f.begin(blobs, bases)
	// Who sleeps in take wakes up when ctx ends.
	defer context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	})()
	var wg sync.WaitGroup
	wg.Go(f.await)
	for _, peer := range f.peers {
		wg.Go(func() { f.work(peer) })
	}
	wg.Wait()
	f.giveUp(context.Cause(ctx))
	return f.result()
}

// fetch is one call of Fetch: a queue of blobs, shared by one worker per peer.
type fetch struct {
	push  *Push
	ctx   context.Context
	peers []cluster.NodeID

	doneMu sync.Mutex // done is called by one goroutine at a time, without mu
	done   func(manifest.Digest, error)

	mu       sync.Mutex
	changed  *sync.Cond // of anything below
	queue    []*item
	coming   []*item        // are on their way here already
	left     map[*item]bool // not yet done
	working  []cluster.NodeID
	dead     []cluster.NodeID // failed; not asked again by this call
	hedged   []cluster.NodeID // of the dead, those that were merely quiet for a while
	second   []cluster.NodeID // those that have been given a second chance, with more time
	width    int              // how many peers are asked at a time
	wanted   int
	failures int
	first    error // of the failures
	came     bool  // something to flush
}

// item is one blob's way through a fetch.
type item struct {
	ref   manifest.BlobRef
	base  manifest.Digest  // zero: none is known
	whole bool             // nothing else has been of use
	waits bool             // it was on its way here already: that is waited for once
	tried []cluster.NodeID // do not hold it, or failed to send it
	err   error            // why the last of them did not
}

func newFetch(p *Push, ctx context.Context, done func(manifest.Digest, error), peers []cluster.NodeID) *fetch {
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	f := &fetch{push: p, ctx: ctx, done: done, peers: peers, left: map[*item]bool{}}
	f.changed = sync.NewCond(&f.mu)
	return f
}

// begin sorts the blobs into those that are here, those that are coming and
// those to ask for.
func (f *fetch) begin(blobs []manifest.BlobRef, bases manifest.Bases) {
	var here []*item
	seen := make(map[manifest.Digest]bool, len(blobs))
	f.mu.Lock()
	for _, ref := range blobs {
		if seen[ref.Digest] {
			continue
		}
		seen[ref.Digest] = true
		it := &item{ref: ref, base: bases[ref.Digest], err: ErrNoSource}
		f.left[it] = true
		switch {
		case f.push.store.Has(ref.Digest):
			here = append(here, it)
		case f.push.arrivals.find(ref.Digest) != nil:
			it.waits = true
			f.coming = append(f.coming, it)
		default:
			f.queue = append(f.queue, it)
		}
	}
	f.wanted = len(f.left)
	f.width = min(fetchWidth, len(f.queue)/(fetchChunk/4)+1)
	f.mu.Unlock()
	for _, it := range here {
		f.finish(it, nil)
	}
	f.sweep()
}

// await waits for what is on its way here already, as long as that makes
// progress, and queues what did not come.
func (f *fetch) await() {
	for it := f.next(); it != nil; it = f.next() {
		if v := f.push.arrivals.find(it.ref.Digest); v != nil {
			v.wait(f.ctx, f.push.limits.hedge)
		}
		if f.push.store.Has(it.ref.Digest) {
			f.finish(it, nil)
		} else {
			f.requeue(it, "", nil)
		}
	}
}

// next is a blob that is on its way; nil once all is done.
func (f *fetch) next() *item {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.ctx.Err() == nil && len(f.left) > 0 {
		if len(f.coming) > 0 {
			it := f.coming[0]
			f.coming = f.coming[1:]
			return it
		}
		f.changed.Wait()
	}
	return nil
}

// leave leaves a blob to another stream that brings it here.
func (f *fetch) leave(it *item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	it.waits = true
	f.coming = append(f.coming, it)
	f.changed.Broadcast()
}

// finish reports one blob; err is nil where it is here.
func (f *fetch) finish(it *item, err error) {
	f.mu.Lock()
	if !f.left[it] {
		f.mu.Unlock()
		return
	}
	delete(f.left, it)
	f.came = f.came || err == nil
	if err != nil {
		f.failures++
		f.first = cmp.Or(f.first, err)
	}
	f.changed.Broadcast()
	f.mu.Unlock()
	if f.done != nil {
		f.doneMu.Lock()
		defer f.doneMu.Unlock()
		f.done(it.ref.Digest, err)
	}
}

// requeue puts a blob back for others to send; peer, if any, is not asked for
// it again.
func (f *fetch) requeue(it *item, peer cluster.NodeID, why error) {
	f.mu.Lock()
	if peer != "" {
		it.tried = append(it.tried, peer)
		it.err = why
	}
	f.queue = append(f.queue, it)
	// If nobody who works can take it, one more has to begin.
	if !slices.ContainsFunc(f.working, func(p cluster.NodeID) bool { return !slices.Contains(it.tried, p) }) {
		f.width = len(f.working) + 1
	}
	f.changed.Broadcast()
	f.mu.Unlock()
	f.sweep()
}

// fail takes a peer out; one that was merely quiet comes back if nobody else
// can help.
func (f *fetch) fail(peer cluster.NodeID, err error) {
	var quiet *StalledError
	f.mu.Lock()
	f.dead = append(f.dead, peer)
	if errors.As(err, &quiet) && !slices.Contains(f.second, peer) {
		f.hedged = append(f.hedged, peer)
	}
	f.working = slices.DeleteFunc(f.working, func(p cluster.NodeID) bool { return p == peer })
	for _, it := range f.queue {
		if !slices.Contains(it.tried, peer) {
			it.tried = append(it.tried, peer)
			it.err = err
		}
	}
	f.changed.Broadcast()
	f.mu.Unlock()
	f.push.stats.failed.Add(1)
	f.push.log.Debug("a fetch from a peer failed", "peer", string(peer), "error", err)
	f.sweep()
}

// sweep gives up what nobody is left to ask for.
func (f *fetch) sweep() {
	f.mu.Lock()
	hopeless := slices.DeleteFunc(slices.Clone(f.queue), f.hopeful)
	if len(hopeless) > 0 && len(f.hedged) > 0 {
		f.revive()
		hopeless = nil
	}
	f.queue = slices.DeleteFunc(f.queue, func(it *item) bool { return !f.hopeful(it) })
	f.mu.Unlock()
	for _, it := range hopeless {
		f.finish(it, it.err)
	}
}

// hopeful tells whether somebody is left to ask.
func (f *fetch) hopeful(it *item) bool {
	return slices.ContainsFunc(f.peers, func(p cluster.NodeID) bool {
		return !slices.Contains(it.tried, p) && !slices.Contains(f.dead, p)
	})
}

// revive gives the peers that were quiet a second chance, and more time.
func (f *fetch) revive() {
	wasHedged := func(p cluster.NodeID) bool { return slices.Contains(f.hedged, p) }
	f.dead = slices.DeleteFunc(f.dead, wasHedged)
	for it := range f.left {
		it.tried = slices.DeleteFunc(it.tried, wasHedged)
	}
	f.width = len(f.working) + len(f.hedged)
	f.second = append(f.second, f.hedged...)
	f.hedged = nil
	f.changed.Broadcast()
}

// enter waits until this peer's worker is needed; false when all is done.
func (f *fetch) enter(peer cluster.NodeID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.ctx.Err() == nil && len(f.left) > 0 {
		if len(f.queue) > 0 && len(f.working) < f.width && !slices.Contains(f.dead, peer) {
			f.working = append(f.working, peer)
			return true
		}
		f.changed.Wait()
	}
	return false
}

// take gives a worker the next blobs to ask for. It waits for some if wait is
// set; without any it returns nil, and then all is done if it has waited.
func (f *fetch) take(peer cluster.NodeID, wait bool) []*item {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.ctx.Err() == nil && len(f.left) > 0 {
		if taken := f.pick(peer); len(taken) > 0 || !wait {
			return taken
		}
		f.changed.Wait()
	}
	return nil
}

// pick takes a fair share of the queue, of what peer was not asked for yet.
func (f *fetch) pick(peer cluster.NodeID) (taken []*item) {
	share := min(fetchChunk, len(f.queue)/(2*max(1, len(f.working)))+1)
	var size int64
	kept := f.queue[:0:0]
	for i, it := range f.queue {
		if len(taken) == share || len(taken) > 0 && size+it.ref.Size > fetchBytes {
			kept = append(kept, f.queue[i:]...)
			break
		}
		if slices.Contains(it.tried, peer) {
			kept = append(kept, it)
			continue
		}
		taken = append(taken, it)
		size += it.ref.Size
	}
	f.queue = kept
	return taken
}

// giveUp ends what is left when the caller's context has ended.
func (f *fetch) giveUp(why error) {
	f.mu.Lock()
	var rest []*item
	for it := range f.left {
		rest = append(rest, it)
	}
	f.mu.Unlock()
	for _, it := range rest {
		f.finish(it, cmp.Or(why, it.err))
	}
}

// result makes what came durable and sums up.
func (f *fetch) result() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.came {
		err = f.push.store.Flush()
	}
	if f.failures > 0 {
		err = errors.Join(&IncompleteError{Missing: f.failures, Wanted: f.wanted, First: f.first}, err)
	}
	return err
}
