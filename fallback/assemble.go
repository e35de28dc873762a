package fallback

import (
	"bytes"
	"fmt"
	"io"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// blobReader reads one blob off a stream of pieces: the store pulls, so that a
// slow disk slows the sender down and nothing is buffered in between. It
// believes nothing about a piece that it has not checked.
type blobReader struct {
	ref  manifest.BlobRef
	next func() (*pb.Piece, error) // the stream's next piece; its errors end the stream

	data   []byte // accepted and not yet read
	got    int64  // accepted so far
	broken bool   // the sender gave this blob up
	fatal  error  // the stream is of no more use
}

// storeBlob puts the blob that begins with first into the store, unless it is
// there already. blobErr concerns this blob alone: the stream has been read
// past it and goes on. streamErr ends the stream.
func storeBlob(store Store, ref manifest.BlobRef, first *pb.Piece, next func() (*pb.Piece, error)) (stored bool, blobErr, streamErr error) {
	r := &blobReader{ref: ref, next: next}
	r.accept(first)
	if r.fatal == nil && !r.broken && !store.Has(ref.Digest) {
		blobErr = store.PutKnown(ref, r)
		stored = blobErr == nil
	}
	r.drain()
	if r.fatal != nil {
		return false, nil, r.fatal
	}
	if r.broken {
		return false, fmt.Errorf("blob %s: %w", ref.Digest.Short(), errBroken), nil
	}
	return stored, blobErr, nil
}

// accept checks a piece against what must come next.
func (r *blobReader) accept(p *pb.Piece) {
	n := int64(len(p.GetData()))
	var what string
	switch {
	case !bytes.Equal(p.GetDigest(), r.ref.Digest[:]):
		what = "the pieces of two blobs are interleaved"
	case p.GetBroken():
		r.broken = true
		return
	case p.GetSize() != r.ref.Size:
		what = fmt.Sprintf("a piece says that its blob has %d bytes, announced were %d", p.GetSize(), r.ref.Size)
	case p.GetOffset() != r.got:
		what = fmt.Sprintf("a piece at %d, expected at %d", p.GetOffset(), r.got)
	case n > maxPiece:
		what = fmt.Sprintf("a piece of %d bytes, the limit is %d", n, maxPiece)
	case n > r.ref.Size-r.got:
		what = fmt.Sprintf("more than the %d bytes that were announced", r.ref.Size)
	case n == 0 && r.ref.Size > 0:
		what = "an empty piece"
	}
	if what != "" {
		r.fatal = &ProtocolError{What: fmt.Sprintf("blob %s: %s", r.ref.Digest.Short(), what)}
		return
	}
	r.data = p.GetData()
	r.got += n
}

// more makes data available; false at the end of the blob, whatever the end is.
func (r *blobReader) more() bool {
	for len(r.data) == 0 {
		if r.fatal != nil || r.broken || r.got == r.ref.Size {
			return false
		}
		p, err := r.next()
		if err != nil {
			r.fatal = err
			return false
		}
		r.accept(p)
	}
	return true
}

// Read implements io.Reader for the store.
func (r *blobReader) Read(b []byte) (int, error) {
	if !r.more() {
		switch {
		case r.fatal != nil:
			return 0, r.fatal
		case r.broken:
			return 0, errBroken
		}
		return 0, io.EOF
	}
	n := copy(b, r.data)
	r.data = r.data[n:]
	return n, nil
}

// drain reads what is left of the blob, so that the stream stands at the next.
func (r *blobReader) drain() {
	r.data = nil
	for r.more() {
		r.data = nil
	}
}
