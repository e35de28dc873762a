package target

import (
	"errors"
	"fmt"
	"io"
	"os"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// How a PushContent brings content.
const (
	howRaw     = 0 // as it is
	howPacked  = 1 // zstd; of several wants, one behind the other
	howAgainst = 2 // zstd with the old version as its dictionary
	howDelta   = 3 // package delta, by the signature of the old version
)

// dataReader reads the frames of streamed content, up to their end.
type dataReader struct {
	l     *link
	buf   []byte
	ended bool
	err   error
	void  string // why the content is not whole
}

var errVoid = errors.New("the content changed while it was sent")

func (d *dataReader) Read(b []byte) (int, error) {
	for len(d.buf) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		kind, payload, err := d.l.next()
		switch {
		case err != nil:
			d.err = err
		case kind == frameData:
			d.buf = payload
		case kind == frameEnd:
			var m pb.PushEnd
			d.ended, d.err = true, io.EOF
			if err := parse(payload, &m); err != nil {
				d.err = err
			} else if !m.GetWhole() {
				d.err, d.void = errVoid, printable(m.GetWhy())
			}
		default:
			if d.err = refusal(kind, payload); d.err == nil {
				d.err = fmt.Errorf("%w: a frame of kind %d within content", ErrProtocol, kind)
			}
		}
	}
	n := copy(b, d.buf)
	d.buf = d.buf[n:]
	return n, nil
}

// drain reads to the end of the content. What it returns is of the stream.
func (d *dataReader) drain() error {
	if !d.ended {
		_, _ = io.Copy(io.Discard, d)
	}
	if d.ended {
		return nil
	}
	return d.err
}

// joined is two contents, one behind the other.
type joined struct {
	a, b   io.ReaderAt
	border int64
}

func (j joined) ReadAt(p []byte, off int64) (n int, err error) {
	if off < j.border {
		n, err = j.a.ReadAt(p[:min(int64(len(p)), j.border-off)], off)
		if n < len(p) && off+int64(n) < j.border {
			return n, errors.Join(err, io.ErrUnexpectedEOF)
		}
	}
	if n < len(p) {
		m, err := j.b.ReadAt(p[n:], off+int64(n)-j.border)
		return n + m, err
	}
	return n, nil
}

// closers closes all of them.
type closers []io.Closer

func (c closers) Close() (err error) {
	for _, x := range c {
		err = errors.Join(err, x.Close())
	}
	return err
}

// fileSize is 0 where there is none.
func fileSize(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}
