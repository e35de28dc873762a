package fallback

import (
	"context"
	"errors"
	"io"

	"github.com/gatesync/gatesync/manifest"
)

// taking is how the reading of a parcel has ended, or the wait for a fetch.
type taking struct {
	id      uint64
	err     error // nil: all of it is in the store
	fetched bool  // it was a wait; what came of it the store knows
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
	refs := make([]manifest.BlobRef, len(b.blobs))
	for i, n := range b.blobs {
		refs[i] = n.BlobRef
	}
	return r.push.share.take(ctx, b.parcel, refs,
		func(d manifest.Digest) bool { return !store.Has(d) },
		func(ref manifest.BlobRef, from io.Reader) error { return store.PutKnown(ref, from) },
		r.pulse.beat)
}

// took goes on with a batch that waited, in the handler's goroutine:
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
	case t.fetched:
		return r.bring(b)
	case t.err == nil, errors.As(t.err, &own): // the share has done its part
		for _, ref := range b.blobs {
			if w := r.wants[ref.Digest]; own != nil && w.err == nil {
				w.err = own.error
			}
		}
		return r.finish(t.id)
	case errors.As(t.err, &protocol):
		return t.err
	}
	return r.need(b, t.err.Error())
}
