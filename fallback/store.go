package fallback

import (
	"io"

	"github.com/gatesync/gatesync/manifest"
)

// StoreOf makes a Store of a blob store whose Open returns its own type of
// reader: fallback.StoreOf(blobs) for a *blob.Store.
func StoreOf[R Reader](s typedStore[R]) Store {
	return typed[R]{s}
}

type typedStore[R Reader] interface {
	Has(manifest.Digest) bool
	Size(manifest.Digest) (int64, bool)
	Open(manifest.Digest) (R, error)
	PutKnown(ref manifest.BlobRef, r io.Reader) error
	Begun(manifest.Digest) int64
	PutRest(ref manifest.BlobRef, begun int64, r io.Reader) error
	Flush() error
	ID() string
}

type typed[R Reader] struct{ typedStore[R] }

// Open hides the type of the reader.
func (s typed[R]) Open(d manifest.Digest) (Reader, error) {
	r, err := s.typedStore.Open(d)
	if err != nil {
		return nil, err // not a nil R inside a Reader
	}
	return r, nil
}
