package fallback

import (
	"context"
	"errors"
	"io"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// taking is how the reading of a parcel has ended.
type taking struct {
	id  uint64
	err error // nil: all of it is in the store
}

// take reads offered parcels off the share, one after another, beside the
// handler: meanwhile other batches come in.
func (r *receiver) take() {
	for {
		select {
		case b := <-r.laid:
			t := taking{id: b.id, err: r.takeParcel(b)}
			select {
			case r.taken <- t:
			case <-r.ctx.Done():
				return
			}
		case <-r.ctx.Done():
			return
		}
	}
}

func (r *receiver) takeParcel(b *inbound) error {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	defer context.AfterFunc(r.push.ctx, cancel)()
	store := r.push.store
	return r.push.share.take(ctx, b.parcel, b.refs,
		func(d manifest.Digest) bool { return !store.Has(d) },
		func(ref manifest.BlobRef, from io.Reader) error { return store.PutKnown(ref, from) },
		r.pulse.beat)
}

// took goes on with a batch whose parcel was read, in the handler's goroutine:
// what could not be had is asked for, as of any offer.
func (r *receiver) took(t taking) error {
	r.takes--
	b := r.batches[t.id]
	if b == nil {
		return &ProtocolError{What: "the end of a batch before its answer"}
	}
	var protocol *ProtocolError
	var own *ownError
	switch {
	case t.err == nil, errors.As(t.err, &own): // the share has done its part
		for _, ref := range b.refs {
			if w := r.wants[ref.Digest]; own != nil && w.err == nil {
				w.err = own.error
			}
		}
		return r.finish(t.id)
	case errors.As(t.err, &protocol):
		return t.err
	}
	needs := &pb.Needs{ShareTrouble: t.err.Error()} // whole: a share carries no deltas
	for _, ref := range b.refs {
		if r.push.store.Has(ref.Digest) {
			r.push.arrivals.end(ref.Digest, r.wants[ref.Digest].arrival)
		} else {
			needs.Digests = append(needs.Digests, ref.Digest[:])
		}
	}
	if len(needs.GetDigests()) == 0 {
		return r.finish(t.id)
	}
	return r.respond(&pb.PushResponse{Batch: t.id, Of: &pb.PushResponse_Needs{Needs: needs}})
}
