package node

import (
	"io"
	"sync"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
)

// recentBlobs is the blob store with a memory of what was put or found in it
// lately: content in flight (captured and not yet proposed, received and not
// yet committed) belongs to nothing that the collection knows, and must
// survive it. What was touched since the collection before the last is recent.
// Safe for concurrent use.
type recentBlobs struct {
	*blob.Store

	mu       sync.Mutex
	now, old map[manifest.Digest]struct{}
}

func newRecentBlobs(s *blob.Store) *recentBlobs {
	return &recentBlobs{Store: s, now: map[manifest.Digest]struct{}{}, old: map[manifest.Digest]struct{}{}}
}

func (b *recentBlobs) touch(d manifest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now[d] = struct{}{}
}

// Put is the store's, remembered.
func (b *recentBlobs) Put(r io.Reader) (manifest.BlobRef, error) {
	ref, err := b.Store.Put(r)
	if err == nil {
		b.touch(ref.Digest)
	}
	return ref, err
}

// PutKnown is the store's, remembered before it begins.
func (b *recentBlobs) PutKnown(ref manifest.BlobRef, r io.Reader) error {
	b.touch(ref.Digest)
	return b.Store.PutKnown(ref, r)
}

// PutRest is the store's, remembered before it begins.
func (b *recentBlobs) PutRest(ref manifest.BlobRef, begun int64, r io.Reader) error {
	b.touch(ref.Digest)
	return b.Store.PutRest(ref, begun, r)
}

// Has is the store's; who finds content here may be about to give a receipt.
func (b *recentBlobs) Has(d manifest.Digest) bool {
	has := b.Store.Has(d)
	if has {
		b.touch(d)
	}
	return has
}

// recent tells whether content was touched lately.
func (b *recentBlobs) recent(d manifest.Digest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, now := b.now[d]
	_, old := b.old[d]
	return now || old
}

// age makes what is recent now old, and forgets what was old.
func (b *recentBlobs) age() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.old, b.now = b.now, map[manifest.Digest]struct{}{}
}
