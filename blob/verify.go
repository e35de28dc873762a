package blob

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"

	"github.com/gatesync/gatesync/manifest"
)

// Verify reads every blob and calls fn with what it found: nil, ErrCorrupt, or
// why it could not be read. What was found corrupt is no longer answered for.
// What is put meanwhile may be left out. fn is called from this goroutine.
func (s *Store) Verify(ctx context.Context, fn func(manifest.BlobRef, error)) error {
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
	buf := make([]byte, 256<<10)
	for _, it := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.verify(it.digest, buf)
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

func (s *Store) verify(d manifest.Digest, buf []byte) error {
	r, err := s.Open(d)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		if _, err := r.Read(buf); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
