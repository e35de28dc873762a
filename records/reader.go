package records

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	gproto "google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/manifest"
)

// ErrDigest: the last record does not fit those before it.
var ErrDigest = errors.New("the digest does not match the content")

// Reader reads what a Writer wrote. It is for one goroutine.
type Reader struct {
	in     *bufio.Reader
	most   uint64
	hash   manifest.Hasher // of the records before the latest
	buf    bytes.Buffer    // the latest, with its length
	prefix []byte          // its length
	count  uint64
}

// NewReader reads records of at most so many bytes, through a buffer of
// another size.
func NewReader(in io.Reader, buffer int, most uint64) *Reader {
	return &Reader{in: bufio.NewReaderSize(in, buffer), most: most, hash: manifest.NewHasher()}
}

// Next reads the next record.
func (r *Reader) Next(into gproto.Message) error {
	_, _ = r.hash.Write(r.buf.Bytes()) // a Hasher's Write never fails
	r.buf.Reset()
	size, err := binary.ReadUvarint(r.in)
	if err != nil {
		return fmt.Errorf("torn after %d records: %w", r.count, err)
	}
	if size > r.most {
		return fmt.Errorf("record of %d bytes, the limit is %d", size, r.most)
	}
	r.prefix = binary.AppendUvarint(r.prefix[:0], size)
	r.buf.Write(r.prefix)
	if _, err := io.CopyN(&r.buf, r.in, int64(size)); err != nil {
		return fmt.Errorf("torn after %d records: %w", r.count, err)
	}
	if err := gproto.Unmarshal(r.buf.Bytes()[len(r.prefix):], into); err != nil {
		return err
	}
	r.count++
	return nil
}

// Count returns how many records were read.
func (r *Reader) Count() uint64 { return r.count }

// Check tells whether the latest record, which says this number and digest,
// fits all those before it: ErrDigest.
func (r *Reader) Check(count uint64, digest []byte) error {
	if want := r.hash.Digest(); r.count == 0 || count != r.count-1 || !bytes.Equal(digest, want[:]) {
		return ErrDigest
	}
	return nil
}

// AtEnd tells whether nothing follows.
func (r *Reader) AtEnd() bool {
	_, err := r.in.Peek(1)
	return errors.Is(err, io.EOF)
}
