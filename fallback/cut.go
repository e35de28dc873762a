package fallback

import (
	"context"
	"errors"
	"io"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// outgoing is a blob on its way out.
type outgoing struct {
	ref   manifest.BlobRef
	base  manifest.Digest // the receiver holds it: a delta will do, where there is one; zero: content
	begun int64           // of content, so much is there already
}

// outgoings are blobs that travel whole.
func outgoings(refs []manifest.BlobRef) []outgoing {
	out := make([]outgoing, len(refs))
	for i, ref := range refs {
		out[i].ref = ref
	}
	return out
}

// cutter cuts blobs of a store into pieces: small blobs together into one
// message, large ones into many. It is used by one goroutine.
type cutter struct {
	ctx    context.Context
	store  Store
	deltas *deltas
	pace   pace
	buf    []byte   // of one message; made at first use
	sent   *traffic // counts

	// The blob under the knife; cur is nil between blobs.
	cur    io.Reader
	blob   Reader // that cur reads …
	made   *made  // … or the delta
	off    int64
	length int64 // of content or delta
}

// fill takes blobs from the queue until a message is full. The pieces are valid
// until the next call. A blob leaves the queue with its last piece.
func (c *cutter) fill(queue *[]outgoing) []*pb.Piece {
	if c.buf == nil {
		c.buf = make([]byte, c.pace.piece())
	}
	var pieces []*pb.Piece
	used := 0
	for len(*queue) > 0 && used < len(c.buf) {
		o := (*queue)[0]
		if len(pieces) > 0 && c.cur == nil && c.deltas.slow(o.ref, o.base) {
			break // the caller may want to have it made
		}
		err := c.begin(o)
		room := int64(len(c.buf) - used)
		if len(pieces) > 0 && c.length-c.off > room {
			break // it begins a message of its own
		}
		n := int(min(room, c.length-c.off))
		p := &pb.Piece{Digest: o.ref.Digest[:], Size: o.ref.Size, Offset: c.off, Data: c.buf[used : used+n]}
		if c.made != nil {
			p.Form, p.Base, p.Length = c.made.form, c.made.kin.base[:], c.length
		}
		last := false
		if err == nil {
			last, err = c.read(p.Data)
		}
		if err != nil {
			p = broken(o.ref)
		} else {
			used += n
			c.sent.carried(n, c.made != nil)
		}
		pieces = append(pieces, p)
		if last {
			c.sent.arrived(o.ref.Size, c.made != nil)
		}
		if last || err != nil {
			c.close()
			*queue = (*queue)[1:]
		}
	}
	return pieces
}

// begin opens a blob, unless it is under the knife.
func (c *cutter) begin(o outgoing) (err error) {
	if c.cur != nil {
		return nil
	}
	if !o.base.IsZero() {
		if c.made = c.deltas.find(c.ctx, o.ref, o.base); c.made != nil {
			c.cur, c.length = c.made.data.reader(), c.made.data.size
			return nil
		}
	}
	c.length, c.off = o.ref.Size, o.begun
	if c.blob, err = c.store.Open(o.ref.Digest); err != nil {
		c.blob = nil
		return err
	}
	c.cur = c.blob
	if o.begun > 0 {
		c.cur = io.NewSectionReader(c.blob, o.begun, o.ref.Size-o.begun)
	}
	return nil
}

// read fills b with the next bytes.
func (c *cutter) read(b []byte) (last bool, err error) {
	if _, err := io.ReadFull(c.cur, b); err != nil {
		return false, err
	}
	if c.off += int64(len(b)); c.off < c.length {
		return false, nil
	}
	// The end has to be where it should be, and the store tells damage there:
	// better not to send the last piece than to have the digest refused.
	if n, err := io.ReadFull(c.cur, make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return false, errors.Join(errors.New("the stored blob has another size"), err)
	}
	return true, nil
}

// abort gives up the blob under the knife, if any: the receiver has to be told.
func (c *cutter) abort(o outgoing) []*pb.Piece {
	if c.cur == nil {
		return nil
	}
	c.close()
	return []*pb.Piece{broken(o.ref)}
}

func (c *cutter) close() {
	if c.blob != nil {
		_ = c.blob.Close()
	}
	c.deltas.release(c.made)
	c.cur, c.blob, c.made, c.off, c.length = nil, nil, nil, 0, 0
}

func broken(ref manifest.BlobRef) *pb.Piece {
	return &pb.Piece{Digest: ref.Digest[:], Size: ref.Size, Broken: true}
}

// named is a blob as a peer names it.
type named struct {
	manifest.BlobRef
	base  manifest.Digest // of a delta; zero: none
	begun int64           // of the blob, so much is with the asker
}

// infoOf names a blob on the wire.
func infoOf(n named) *pb.BlobInfo {
	b := &pb.BlobInfo{Digest: n.Digest[:], Size: n.Size, Begun: n.begun}
	if !n.base.IsZero() {
		b.Base = n.base[:]
	}
	return b
}

// namesOf checks what a peer names: how many, and each size, before anything is
// believed.
func namesOf(blobs []*pb.BlobInfo) ([]named, error) {
	if len(blobs) == 0 || len(blobs) > batchBlobs {
		return nil, &ProtocolError{What: "a batch without blobs or with too many"}
	}
	out := make([]named, len(blobs))
	for i, b := range blobs {
		n, err := nameOf(b)
		if err != nil {
			return nil, err
		}
		out[i] = n
	}
	return out, nil
}

func nameOf(b *pb.BlobInfo) (n named, err error) {
	n.Size, n.begun = b.GetSize(), b.GetBegun()
	if n.Digest, err = manifest.DigestFromBytes(b.GetDigest()); err != nil {
		return n, &ProtocolError{What: err.Error()}
	}
	if n.Size < 0 || n.Size > maxBlob || n.begun < 0 || n.begun > n.Size {
		return n, &ProtocolError{What: "an impossible size"}
	}
	if len(b.GetBase()) > 0 {
		if n.base, err = manifest.DigestFromBytes(b.GetBase()); err != nil {
			return n, &ProtocolError{What: err.Error()}
		}
	}
	return n, nil
}
