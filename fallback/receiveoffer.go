package fallback

import (
	"fmt"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// offer notes a batch and says what is needed of it, now or later.
func (r *receiver) offer(o *pb.Offer) error {
	blobs, err := namesOf(o.GetBlobs())
	if err != nil {
		return err
	}
	id := o.GetBatch()
	if id <= r.last {
		return &ProtocolError{What: "batch numbers that do not grow"}
	}
	if len(r.batches) >= openBatches {
		return &ProtocolError{What: "too many open batches"}
	}
	r.last = id
	var total int64
	missing := false
	seen := make(map[manifest.Digest]bool, len(blobs))
	for _, b := range blobs {
		total += b.Size
		if w := r.wants[b.Digest]; w != nil && w.size != b.Size || seen[b.Digest] {
			return &ProtocolError{What: "a blob with two sizes, or twice in a batch"}
		}
		seen[b.Digest] = true
		if size, ok := r.push.store.Size(b.Digest); !ok {
			missing = true
		} else if size != b.Size {
			return &ProtocolError{What: fmt.Sprintf("blob %s has %d bytes, not %d", b.Digest.Short(), size, b.Size)}
		}
	}
	if o.GetEager() && total > eagerBytes {
		return &ProtocolError{What: "an eager batch that is too large"}
	}
	if !o.GetEager() && !missing {
		return r.complete(id) // nothing will come, not even its end
	}
	in := &inbound{id: id, blobs: blobs, parcel: o.GetParcel()}
	r.batches[id] = in
	var fetched []*arrival
	for _, b := range blobs {
		w := r.wants[b.Digest]
		if w == nil {
			w = &want{size: b.Size}
			r.wants[b.Digest] = w
		}
		w.batches++
		if v := r.expect(b, w); v != nil {
			fetched = append(fetched, v)
		}
	}
	switch {
	case o.GetEager():
		return nil
	case len(fetched) > 0:
		return r.await(in, fetched)
	}
	return r.bring(in)
}

// expect notes that this stream brings a blob, unless it is here. It returns
// that it comes already, because this node has asked for it.
func (r *receiver) expect(b named, w *want) (fetched *arrival) {
	if w.arrival != nil || r.push.store.Has(b.Digest) {
		return nil
	}
	if w.arrival = r.push.arrivals.begin(b.Digest, &r.pulse, false); w.arrival == nil {
		if v := r.push.arrivals.find(b.Digest); v != nil && v.asked {
			return v
		}
	}
	return nil
}

// await waits, beside the handler, for what this node is fetching itself: it
// need not come twice. A fetch waits for no push that waits for it: it has asked.
func (r *receiver) await(in *inbound, fetched []*arrival) error {
	r.takes++
	if !r.push.spawn(func() {
		for _, v := range fetched {
			v.wait(r.ctx, r.push.limits.hedge)
		}
		select {
		case r.taken <- taking{id: in.id, fetched: true}:
		case <-r.ctx.Done():
		}
	}) {
		return ErrClosed
	}
	return nil
}

// bring has what is not here of a batch brought: off the share, or by the sender.
func (r *receiver) bring(in *inbound) error {
	if in.parcel != "" && r.push.share != nil {
		r.takes++
		return hand(r, r.laid, in, r.push.limits.stall)
	}
	return r.need(in, "")
}

// need says what is needed of a batch, and what is here that saves some of it.
func (r *receiver) need(in *inbound, shareTrouble string) error {
	needs := &pb.Needs{ShareTrouble: shareTrouble}
	for _, b := range in.blobs {
		w := r.wants[b.Digest]
		if r.push.store.Has(b.Digest) {
			r.push.arrivals.end(b.Digest, w.arrival)
			continue
		}
		r.expect(b, w)
		needs.Digests = append(needs.Digests, b.Digest[:])
		if has := r.push.begun(b.BlobRef); has > 0 {
			w.begun = has
			needs.Begun = append(needs.Begun, infoOf(named{BlobRef: b.BlobRef, begun: has}))
		} else if r.push.deltas.likely(b.BlobRef, b.base) {
			needs.Over = append(needs.Over, b.Digest[:])
		}
	}
	if len(needs.GetDigests()) == 0 {
		return r.finish(in.id)
	}
	return r.respond(&pb.PushResponse{Batch: in.id, Of: &pb.PushResponse_Needs{Needs: needs}})
}
