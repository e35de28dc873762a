package blob

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"

	"github.com/gatesync/gatesync/manifest"
)

// Verify reads every blob and calls fn with what it found: nil, ErrCorrupt, or
// why it could not be read. What was found corrupt is no longer answered for.
// What is put meanwhile may be left out. fn is called from this goroutine.
func (s *Store) Verify(ctx context.Context, fn func(manifest.BlobRef, error)) error {
	return s.scrub(ctx, 0, func(int) error { return ctx.Err() }, fn)
}

// Scrub is Verify at leisure: it begins somewhere, so that one who never gets
// to the end comes by everywhere in time, and calls pace with the size of what
// it is about to read. It ends with pace's error.
func (s *Store) Scrub(ctx context.Context, pace func(bytes int) error, fn func(manifest.BlobRef, error)) error {
	return s.scrub(ctx, rand.Float64(), pace, fn)
}

func (s *Store) scrub(ctx context.Context, from float64, pace func(int) error, fn func(manifest.BlobRef, error)) error {
	type item struct {
		digest manifest.Digest
		at     place
	}
	s.mu.RLock()
	all := make([]item, 0, len(s.index))
	for d, at := range s.index {
		all = append(all, item{d, at})
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b item) int { // as they lie on disk
		return cmp.Or(cmp.Compare(a.at.pack, b.at.pack), cmp.Compare(a.at.offset, b.at.offset))
	})
	begin := int(from * float64(len(all)))
	all = append(all[begin:], all[:begin]...)
	buf := make([]byte, 256<<10)
	for _, it := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		err, paceErr := s.verify(it.digest, buf, pace)
		if paceErr != nil {
			return paceErr
		}
		if errors.Is(err, ErrClosed) {
			return err
		}
		if errors.Is(err, ErrNotFound) {
			continue // collected meanwhile
		}
		fn(manifest.BlobRef{Digest: it.digest, Size: it.at.size}, err)
	}
	return nil
}

// verify reads one blob; paceErr is what pace ended it with.
func (s *Store) verify(d manifest.Digest, buf []byte, pace func(int) error) (err, paceErr error) {
	r, err := s.Open(d)
	if err != nil {
		return err, nil
	}
	defer r.Close()
	for {
		if err := pace(int(min(int64(len(buf)), r.Size()-r.pos))); err != nil {
			return nil, err
		}
		if _, err := r.Read(buf); errors.Is(err, io.EOF) {
			return nil, nil
		} else if err != nil {
			return err, nil
		}
	}
}
