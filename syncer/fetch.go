package syncer

import (
	"context"
	"sync"

	"github.com/gatesync/gatesync/manifest"
)

// fetch gets blobs from the other nodes and posts each as it comes. Large ones
// are asked for apart from the rest.
func (s *Syncer) fetch(ctx context.Context, e Fetch) {
	var small, big []manifest.BlobRef
	have := Fetched{}
	for _, ref := range e.Blobs {
		switch {
		case s.cfg.Blobs.Has(ref.Digest):
			have.Have = append(have.Have, ref.Digest)
		case ref.Size >= bigFile:
			big = append(big, ref)
		default:
			small = append(small, ref)
		}
	}
	if len(have.Have) > 0 {
		s.inbox.post(have)
	}
	for _, refs := range [][]manifest.BlobRef{small, big} {
		if len(refs) > 0 {
			s.bg.Go(func() { s.fetchAll(ctx, refs, e.Bases) })
		}
	}
}

// PeerBack says that a node can be reached again: content that could not be had
// is asked for at once.
func (s *Syncer) PeerBack() {
	if s.running.Load() {
		s.inbox.post(PeerBack{})
	}
}

// fetchAll answers for each digest exactly once, whatever the carrier does.
func (s *Syncer) fetchAll(ctx context.Context, refs []manifest.BlobRef, bases manifest.Bases) {
	var mu sync.Mutex
	open := make(map[manifest.Digest]struct{}, len(refs))
	for _, ref := range refs {
		open[ref.Digest] = struct{}{}
	}
	err := s.cfg.Carrier.Fetch(ctx, refs, bases, func(d manifest.Digest, err error) {
		mu.Lock()
		_, wanted := open[d]
		delete(open, d)
		mu.Unlock()
		if !wanted || ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Debug("cannot fetch content", "digest", d.Short(), "err", err)
			s.inbox.post(Fetched{Failed: []manifest.Digest{d}, Why: err.Error()})
			return
		}
		s.inbox.post(Fetched{Have: []manifest.Digest{d}})
	})
	if ctx.Err() != nil {
		return
	}
	mu.Lock()
	defer mu.Unlock()
	if len(open) == 0 {
		return
	}
	s.log.Warn("content could not be fetched; it is tried again", "blobs", len(open), "err", err)
	failed := Fetched{}
	if err != nil {
		failed.Why = err.Error()
	}
	for d := range open {
		failed.Failed = append(failed.Failed, d)
	}
	clear(open) // a late answer must not be a second one
	s.inbox.post(failed)
}
