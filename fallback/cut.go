package fallback

import (
	"errors"
	"io"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// cutter cuts blobs of a store into pieces: small blobs together into one
// message, large ones into many. It is used by one goroutine.
type cutter struct {
	store Store
	pace  pace
	buf   []byte // of one message; made at first use

	cur  Reader // the blob under the knife; nil between blobs
	off  int64
	sent func(blobs int, bytes int64) // counts
}

// fill takes blobs from the queue until a message is full. The pieces are valid
// until the next call. A blob leaves the queue with its last piece.
func (c *cutter) fill(queue *[]manifest.BlobRef) []*pb.Piece {
	if c.buf == nil {
		c.buf = make([]byte, c.pace.piece())
	}
	var pieces []*pb.Piece
	used := 0
	for len(*queue) > 0 && used < len(c.buf) {
		ref := (*queue)[0]
		room := int64(len(c.buf) - used)
		if len(pieces) > 0 && ref.Size-c.off > room {
			break // it begins a message of its own
		}
		n := int(min(room, ref.Size-c.off))
		p := &pb.Piece{Digest: ref.Digest[:], Size: ref.Size, Offset: c.off, Data: c.buf[used : used+n]}
		last, err := c.read(ref, p.Data)
		if err != nil {
			p = broken(ref)
		} else {
			used += n
		}
		pieces = append(pieces, p)
		if last || err != nil {
			c.close()
			*queue = (*queue)[1:]
			if err == nil {
				c.sent(1, ref.Size)
			}
		}
	}
	return pieces
}

// read fills b with the blob's next bytes.
func (c *cutter) read(ref manifest.BlobRef, b []byte) (last bool, err error) {
	if c.cur == nil {
		if c.cur, err = c.store.Open(ref.Digest); err != nil {
			c.cur = nil
			return false, err
		}
	}
	if _, err := io.ReadFull(c.cur, b); err != nil {
		return false, err
	}
	if c.off += int64(len(b)); c.off < ref.Size {
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
func (c *cutter) abort(ref manifest.BlobRef) []*pb.Piece {
	if c.cur == nil {
		return nil
	}
	c.close()
	return []*pb.Piece{broken(ref)}
}

func (c *cutter) close() {
	if c.cur != nil {
		_ = c.cur.Close()
	}
	c.cur, c.off = nil, 0
}

func broken(ref manifest.BlobRef) *pb.Piece {
	return &pb.Piece{Digest: ref.Digest[:], Size: ref.Size, Broken: true}
}

// infos names blobs on the wire.
func infos(refs []manifest.BlobRef) []*pb.BlobInfo {
	out := make([]*pb.BlobInfo, len(refs))
	for i, r := range refs {
		out[i] = &pb.BlobInfo{Digest: r.Digest[:], Size: r.Size}
	}
	return out
}

// refsOf checks what a peer names: how many, and each size, before anything is
// believed.
func refsOf(blobs []*pb.BlobInfo) ([]manifest.BlobRef, error) {
	if len(blobs) == 0 || len(blobs) > batchBlobs {
		return nil, &ProtocolError{What: "a batch without blobs or with too many"}
	}
	refs := make([]manifest.BlobRef, len(blobs))
	for i, b := range blobs {
		d, err := manifest.DigestFromBytes(b.GetDigest())
		if err != nil {
			return nil, &ProtocolError{What: err.Error()}
		}
		if b.GetSize() < 0 || b.GetSize() > maxBlob {
			return nil, &ProtocolError{What: "an impossible size"}
		}
		refs[i] = manifest.BlobRef{Digest: d, Size: b.GetSize()}
	}
	return refs, nil
}
