package records

import (
	"bufio"
	"encoding/binary"
	"io"

	gproto "google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/manifest"
)

// Writer writes records and digests them. The first error sticks. It is for
// one goroutine.
type Writer struct {
	out   *bufio.Writer
	hash  manifest.Hasher
	buf   []byte
	count uint64
	bytes int64
	err   error
}

// NewWriter buffers as many bytes before it hands them to out.
func NewWriter(out io.Writer, buffer int) *Writer {
	return &Writer{out: bufio.NewWriterSize(out, buffer), hash: manifest.NewHasher()}
}

// Put appends one record. Equal messages are equal bytes.
func (w *Writer) Put(m gproto.Message) error {
	if w.err != nil {
		return w.err
	}
	body := gproto.MarshalOptions{Deterministic: true}
	w.buf = binary.AppendUvarint(w.buf[:0], uint64(body.Size(m)))
	if w.buf, w.err = body.MarshalAppend(w.buf, m); w.err != nil {
		return w.err
	}
	_, _ = w.hash.Write(w.buf) // a Hasher's Write never fails
	w.count++
	var n int
	n, w.err = w.out.Write(w.buf)
	w.bytes += int64(n)
	return w.err
}

// Err returns the error that sticks.
func (w *Writer) Err() error { return w.err }

// Sum returns the number and the digest of the records so far: what the last
// one says.
func (w *Writer) Sum() (uint64, manifest.Digest) { return w.count, w.hash.Digest() }

// Finish hands over what is buffered and returns how many bytes there were.
func (w *Writer) Finish() (int64, error) {
	if w.err == nil {
		w.err = w.out.Flush()
	}
	return w.bytes, w.err
}
