package fallback

import (
	"bytes"
	"fmt"
	"io"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// blobReader reads one blob off a stream of pieces: the store pulls, so that a
// slow disk slows the sender down and nothing is buffered in between. It
// believes nothing about a piece that it has not checked.
type blobReader struct {
	ref   manifest.BlobRef
	next  func() (*pb.Piece, error) // the stream's next piece; its errors end the stream
	count *traffic
	size  int64  // of the content, or of the delta that comes instead
	form  uint32 // of the delta
	base  []byte // … and what it is against

	data   []byte // accepted and not yet read
	got    int64  // accepted so far
	broken bool   // the sender gave this blob up
	fatal  error  // the stream is of no more use
}

// taker takes one blob off a stream of pieces into the store. It is used for
// that blob only.
type taker struct {
	push  *Push
	ref   manifest.BlobRef
	begun int64                     // so much of it is here; a sender that knows goes on behind that
	next  func() (*pb.Piece, error) // the stream's next piece; its errors end the stream
	alive func()                    // called now and then while a delta is used
	count *traffic
}

// take takes the blob that begins with first, unless it is there already.
// blobErr concerns this blob alone: the stream has been read past it and goes
// on; a *uselessError: it may come whole. streamErr ends the stream.
func (t *taker) take(first *pb.Piece) (blobErr, streamErr error) {
	if first.GetForm() != formWhole {
		return t.takeDelta(first)
	}
	r := &blobReader{ref: t.ref, next: t.next, count: t.count, size: t.ref.Size}
	begun := int64(0)
	if o := first.GetOffset(); o > 0 && o == t.begun && o < t.ref.Size {
		begun, r.got = o, o
	}
	r.accept(first)
	stored := false
	if r.fatal == nil && !r.broken && !t.push.store.Has(t.ref.Digest) {
		if begun > 0 {
			w := t.work(r)
			blobErr = useless(t.push.store.PutRest(t.ref, begun, w), blob.ErrNotBegun, blob.ErrMismatch)
			w.stop()
		} else {
			blobErr = t.push.store.PutKnown(t.ref, r)
		}
		stored = blobErr == nil
	}
	r.drain()
	if r.fatal != nil {
		return nil, r.fatal
	}
	if r.broken {
		return fmt.Errorf("blob %s: %w", t.ref.Digest.Short(), errBroken), nil
	}
	if stored {
		t.count.arrived(t.ref.Size, false)
	}
	return blobErr, nil
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
	case p.GetForm() != r.form || r.form != formWhole && (p.GetLength() != r.size || !bytes.Equal(p.GetBase(), r.base)):
		what = "a delta that changes its form"
	case p.GetOffset() != r.got:
		what = fmt.Sprintf("a piece at %d, expected at %d", p.GetOffset(), r.got)
	case n > maxPiece:
		what = fmt.Sprintf("a piece of %d bytes, the limit is %d", n, maxPiece)
	case n > r.size-r.got:
		what = fmt.Sprintf("more than the %d bytes that were announced", r.size)
	case n == 0 && r.size > 0:
		what = "an empty piece"
	}
	if what != "" {
		r.fatal = &ProtocolError{What: fmt.Sprintf("blob %s: %s", r.ref.Digest.Short(), what)}
		return
	}
	r.data = p.GetData()
	r.got += n
	r.count.carried(int(n), r.form != formWhole)
}

// more makes data available; false at the end of the blob, whatever the end is.
func (r *blobReader) more() bool {
	for len(r.data) == 0 {
		if r.fatal != nil || r.broken || r.got == r.size {
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
