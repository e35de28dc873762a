package fallback

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// receiver is the receiving end of one Push stream. All of its state belongs
// to the handler's goroutine; flushes happen beside it, so that the next
// batches come in meanwhile and batches that end together share one flush.
type receiver struct {
	push   *Push
	peer   cluster.NodeID // "" where nobody knows
	stream grpc.BidiStreamingServer[pb.PushRequest, pb.PushResponse]
	ctx    context.Context // until the handler returns; its cause, if the flusher ended it
	cancel context.CancelCauseFunc
	in     chan *pb.PushRequest
	out    chan *pb.PushResponse
	ended  chan uint64   // complete batches, to the flusher
	laid   chan *inbound // offered parcels, to the taker
	taken  chan taking   // … and what came of them, and of what was waited for

	batches  map[uint64]*inbound // offered, and not yet ended
	wants    map[manifest.Digest]*want
	last     uint64                    // batch id
	pieces   []*pb.Piece               // of the current message, still to be taken
	end      uint64                    // of the current message
	pulse    pulse                     // for those who wait for what comes here
	flushing atomic.Pointer[time.Time] // since when; nil: not
	takes    int                       // batches whose parcels are being read, or that wait for what is fetched
	beats    int                       // the sender's words that pieces wait, in a row
}

// inbound is a batch that is coming in.
type inbound struct {
	id      uint64
	blobs   []named
	parcel  string // where it lies on the share
	again   bool   // what came in vain was asked for again
	refused bool   // and the sender knows
}

// want is a blob of one open batch or several.
type want struct {
	size    int64
	batches int
	begun   int64 // so much of it is here, and the sender was told
	again   bool  // what came was of no use, the whole is
	err     error // why it could not be stored
	arrival *arrival
}

func newReceiver(p *Push, peer cluster.NodeID, stream grpc.BidiStreamingServer[pb.PushRequest, pb.PushResponse]) *receiver {
	r := &receiver{
		push: p, peer: peer, stream: stream,
		in: make(chan *pb.PushRequest), out: make(chan *pb.PushResponse, 4), ended: make(chan uint64, openBatches),
		laid: make(chan *inbound, openBatches), taken: make(chan taking, openBatches),
		batches: map[uint64]*inbound{}, wants: map[manifest.Digest]*want{},
	}
	r.ctx, r.cancel = context.WithCancelCause(stream.Context())
	r.pulse.beat()
	return r
}

func (r *receiver) run() error {
	defer r.cancel(nil)
	defer func() { // whoever waits for what did not come has to look elsewhere
		for d, w := range r.wants {
			r.push.arrivals.end(d, w.arrival)
		}
	}()
	for _, f := range []func(){
		func() { receiveAll(r.ctx, r.cancel, r.stream.Recv, r.in) },
		func() { sendAll(r.ctx, r.stream.Send, r.out, nil) },
		r.flush, r.take,
	} {
		if !r.push.spawn(f) {
			return ErrClosed
		}
	}
	for {
		more, err := r.message()
		if err != nil || !more {
			return err
		}
		for len(r.pieces) > 0 {
			if err := r.blob(); err != nil {
				return err
			}
		}
		if r.end != 0 {
			if err := r.finish(r.end); err != nil {
				return err
			}
		}
	}
}

// message waits for the next message, checks it as far as it can be, and deals
// with its offer; false when the sender has closed the stream.
func (r *receiver) message() (more bool, err error) {
	m, err := r.wait()
	if m == nil || err != nil {
		return false, err
	}
	r.pulse.beat()
	if m.GetOffer() == nil && len(m.GetPieces()) == 0 && m.GetEnd() == 0 { // pieces wait for their turn
		if r.beats++; len(r.batches) == 0 || r.beats > maxBeats {
			return false, &ProtocolError{What: "an empty message"}
		}
		r.pieces, r.end = nil, 0
		return true, nil
	}
	r.beats = 0
	if m.GetOffer() != nil {
		if err := r.offer(m.GetOffer()); err != nil {
			return false, err
		}
	}
	r.pieces, r.end = m.GetPieces(), m.GetEnd()
	return true, nil
}

// wait receives; nil at the end of the stream. While a batch is open the sender
// has to go on, and while a flush takes long it is told that we are alive.
func (r *receiver) wait() (*pb.PushRequest, error) {
	var stall, tick <-chan time.Time
	if len(r.batches) > r.takes {
		t := time.NewTimer(r.push.limits.stall)
		defer t.Stop()
		stall = t.C
	}
	t := time.NewTicker(r.push.limits.stall / 4)
	defer t.Stop()
	tick = t.C
	for {
		select {
		case m := <-r.in:
			if m == nil { // closed, because the sender is done or for a cause
				return nil, context.Cause(r.ctx)
			}
			return m, nil
		case t := <-r.taken:
			if err := r.took(t); err != nil {
				return nil, err
			}
			return r.wait() // with other timers
		case <-stall:
			return nil, errStalled
		case <-r.ctx.Done():
			return nil, context.Cause(r.ctx)
		case <-r.push.ctx.Done():
			return nil, ErrClosed
		case <-tick:
			since := r.flushing.Load()
			if r.takes == 0 && (since == nil || time.Since(*since) > r.push.limits.flush) {
				continue
			}
			select {
			case r.out <- &pb.PushResponse{Deltas: true}:
			default: // an answer is on its way anyhow
			}
		}
	}
}

// respond hands an answer to the sending goroutine. A peer that reads none of
// them is given up.
func (r *receiver) respond(m *pb.PushResponse) error {
	m.Deltas = true
	return hand(r, r.out, m, r.push.limits.stall)
}

// hand passes v on to another goroutine of the receiver; errStalled where that
// does not take it in time.
func hand[T any](r *receiver, to chan<- T, v T, within time.Duration) error {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case to <- v:
		return nil
	case <-t.C:
		return errStalled
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	case <-r.push.ctx.Done():
		return ErrClosed
	}
}

func (r *receiver) refuse(batch uint64, why error) error {
	r.push.refused(r.peer, "content", why)
	return r.respond(&pb.PushResponse{Batch: batch, Of: &pb.PushResponse_Refused{Refused: why.Error()}})
}

// blob stores the blob whose first piece is next.
func (r *receiver) blob() error {
	first, _ := r.piece()
	d, err := manifest.DigestFromBytes(first.GetDigest())
	if err != nil {
		return &ProtocolError{What: err.Error()}
	}
	w := r.wants[d]
	if w == nil {
		return &ProtocolError{What: fmt.Sprintf("blob %s was not offered", d.Short())}
	}
	ref := manifest.BlobRef{Digest: d, Size: w.size}
	t := taker{push: r.push, ref: ref, begun: w.begun, next: r.piece, alive: r.alive, count: &r.push.stats.received}
	blobErr, err := t.take(first)
	if err != nil {
		return err
	}
	if w.again = errors.As(blobErr, new(*uselessError)); w.again {
		r.push.inVain(r.peer, d, blobErr)
		return nil // it is asked for at the end of the batch
	}
	r.push.arrivals.end(d, w.arrival)
	if blobErr != nil {
		w.err = blobErr
		return r.refuseAll(d, blobErr)
	}
	return nil
}

// piece is the stream's next piece. Offers may stand between pieces, for the
// sender does not hold them back.
func (r *receiver) piece() (*pb.Piece, error) {
	for len(r.pieces) == 0 {
		if r.end != 0 {
			return nil, &ProtocolError{What: "a batch that ends within a blob"}
		}
		more, err := r.message()
		if err != nil {
			return nil, err
		}
		if !more {
			return nil, &ProtocolError{What: "a stream that ends within a blob"}
		}
	}
	p := r.pieces[0]
	r.pieces = r.pieces[1:]
	return p, nil
}

// refuseAll refuses the batches that a blob belongs to, at once: the sender
// need not go on with them.
func (r *receiver) refuseAll(d manifest.Digest, why error) error {
	for id, b := range r.batches {
		for _, ref := range b.blobs {
			if ref.Digest == d && !b.refused {
				b.refused = true
				if err := r.refuse(id, why); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// finish ends a batch: all of it is here, or it is refused.
func (r *receiver) finish(id uint64) error {
	b := r.batches[id]
	if b == nil {
		return &ProtocolError{What: "the end of a batch that is not open"}
	}
	if again := r.inVain(b); len(again) > 0 {
		b.again = true
		return r.respond(&pb.PushResponse{Batch: id, Of: &pb.PushResponse_Needs{Needs: &pb.Needs{Digests: again}}})
	}
	delete(r.batches, id)
	var why error
	for _, ref := range b.blobs {
		w := r.wants[ref.Digest]
		if w.batches--; w.batches == 0 {
			delete(r.wants, ref.Digest)
			r.push.arrivals.end(ref.Digest, w.arrival)
		}
		switch {
		case w.err != nil:
			why = w.err
		case !r.push.store.Has(ref.Digest):
			why = fmt.Errorf("blob %s did not come", ref.Digest.Short())
		}
	}
	switch {
	case b.refused:
		return nil
	case why != nil:
		return r.refuse(id, why)
	}
	return r.complete(id)
}

// inVain is what of a batch came in a way that was of no use, once.
func (r *receiver) inVain(b *inbound) (again [][]byte) {
	if b.again || b.refused {
		return nil
	}
	for _, ref := range b.blobs {
		if r.wants[ref.Digest].again && !r.push.store.Has(ref.Digest) {
			again = append(again, ref.Digest[:])
		}
	}
	return again
}

// alive says that something takes time, unless an answer is on its way anyhow.
func (r *receiver) alive() {
	r.pulse.beat()
	select {
	case r.out <- &pb.PushResponse{Deltas: true}:
	default:
	}
}

// complete has a batch flushed and receipted.
func (r *receiver) complete(id uint64) error {
	return hand(r, r.ended, id, r.push.limits.flush)
}

// flush makes complete batches durable and gives their receipts; one flush for
// all that have come in during the one before.
func (r *receiver) flush() {
	for {
		var ids []uint64
		select {
		case id := <-r.ended:
			ids = append(ids, id)
		case <-r.ctx.Done():
			return
		}
		for more := true; more; {
			select {
			case id := <-r.ended:
				ids = append(ids, id)
			default:
				more = false
			}
		}
		begun := time.Now()
		r.flushing.Store(&begun)
		err := r.push.store.Flush()
		r.flushing.Store(nil)
		for _, id := range ids {
			m := &pb.PushResponse{Batch: id, Of: &pb.PushResponse_Receipt{Receipt: &pb.BatchReceipt{Store: r.push.store.ID()}}}
			if err != nil {
				m.Of = &pb.PushResponse_Refused{Refused: "flush: " + err.Error()}
			}
			if err := r.respond(m); err != nil {
				r.cancel(err)
				return
			}
		}
	}
}
