package delta

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
)

// Where both ends hold the very same old version, a delta copies any run of its
// bytes. It is a row of tokens, zstd around all, uvarints whose lowest bit
// tells what they are:
//
//	n<<1|1  n bytes of the old version; a varint follows, how many bytes the
//	        first of them stands behind where the last copy ended
//	n<<1    n bytes that are new, and then these (n > 0)

// compareStep is how much of the old version is compared at a time.
const compareStep = 256 << 10

// EncodeOver writes the delta of content of any size, which r reads, for
// somebody who holds the same old version of oldSize bytes. What stands in both
// is found chunk by chunk and then followed byte by byte in both directions, so
// that an edit costs what was edited.
func (c *Codec) EncodeOver(w io.Writer, old io.ReaderAt, oldSize int64, r io.Reader, size int64) error {
	o := &over{gear: c.gear, old: old, oldSize: oldSize, avg: AverageFor(oldSize), at: map[uint64]int64{}, seed: maphash.MakeSeed(), r: r, left: size}
	if err := o.index(); err != nil {
		return err
	}
	p, err := c.packer(w)
	if err != nil {
		return err
	}
	o.w = p
	if err := o.run(); err != nil {
		return err // the encoder is dropped
	}
	return p.Close()
}

// over is one EncodeOver under way.
type over struct {
	gear    *gear
	old     io.ReaderAt
	oldSize int64
	avg     int
	at      map[uint64]int64 // where the chunks of the old version begin
	seed    maphash.Seed     // their sums are for this run alone

	r     io.Reader
	left  int64  // not yet read
	buf   []byte // of the content; buf[start:have] is to be told
	start int
	have  int
	near  []byte // of the old version

	w      io.Writer
	fresh  []byte // new bytes that are not told yet
	behind int64  // where the last copy ended
}

func (o *over) index() error {
	var off int64
	return o.gear.chunks(io.NewSectionReader(o.old, 0, o.oldSize), o.oldSize, o.avg, func(b []byte) error {
		k := maphash.Bytes(o.seed, b)
		if _, ok := o.at[k]; !ok {
			o.at[k] = off
		}
		off += int64(len(b))
		return nil
	})
}

func (o *over) run() error {
	most := o.avg * spread
	o.buf, o.near = make([]byte, max(compareStep, 4*most)), make([]byte, max(compareStep, most))
	for {
		if err := o.fill(most); err != nil {
			return err
		}
		if o.start == o.have {
			return o.literal()
		}
		b := o.buf[o.start:o.have]
		b = b[:o.gear.cut(b, o.avg)]
		off, ok := o.at[maphash.Bytes(o.seed, b)]
		if ok {
			n, err := o.equal(b, off)
			if err != nil {
				return err
			}
			ok = n == len(b)
		}
		if !ok {
			o.fresh = append(o.fresh, b...)
			o.start += len(b)
			if len(o.fresh) >= literalMost {
				if err := o.literal(); err != nil {
					return err
				}
			}
			continue
		}
		if err := o.follow(off, len(b)); err != nil {
			return err
		}
	}
}

// fill reads on until so many bytes are there, or all that are left.
func (o *over) fill(most int) error {
	if o.have-o.start >= most || o.left == 0 {
		return nil
	}
	o.have, o.start = copy(o.buf, o.buf[o.start:o.have]), 0
	n, err := io.ReadFull(o.r, o.buf[o.have:o.have+int(min(int64(len(o.buf)-o.have), o.left))])
	o.have, o.left = o.have+n, o.left-int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %d bytes are missing", ErrShort, o.left)
	}
	return err
}

// equal tells how many bytes of b stand in the old version from off on.
func (o *over) equal(b []byte, off int64) (int, error) {
	near := o.near[:min(int64(len(b)), o.oldSize-off)]
	if len(near) == 0 {
		return 0, nil
	}
	if err := readAt(o.old, near, off); err != nil {
		return 0, err
	}
	return common(b, near), nil
}

// follow tells a copy: n bytes that stand at off in the old version, what is
// alike before them, and what is alike behind them.
func (o *over) follow(off int64, n int) error {
	before := o.near[:min(int64(len(o.fresh)), off, int64(len(o.near)))]
	if len(before) > 0 {
		if err := readAt(o.old, before, off-int64(len(before))); err != nil {
			return err
		}
	}
	back := 0
	for back < len(before) && before[len(before)-1-back] == o.fresh[len(o.fresh)-1-back] {
		back++
	}
	o.fresh = o.fresh[:len(o.fresh)-back]
	if err := o.literal(); err != nil {
		return err
	}
	first, end := off-int64(back), off+int64(n)
	o.start += n
	for {
		if err := o.fill(1); err != nil {
			return err
		}
		b := o.buf[o.start:o.have]
		b = b[:min(len(b), len(o.near))]
		same, err := o.equal(b, end)
		if err != nil {
			return err
		}
		o.start, end = o.start+same, end+int64(same)
		if same < len(b) || same == 0 {
			break
		}
	}
	t := binary.AppendUvarint(nil, uint64(end-first)<<1|1)
	_, err := o.w.Write(binary.AppendVarint(t, first-o.behind))
	o.behind = end
	return err
}

// literal tells what is new.
func (o *over) literal() error {
	if len(o.fresh) == 0 {
		return nil
	}
	_, err := o.w.Write(binary.AppendUvarint(nil, uint64(len(o.fresh))<<1))
	if err == nil {
		_, err = o.w.Write(o.fresh)
	}
	o.fresh = o.fresh[:0]
	return err
}

// common is the length of what a and b begin with both.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	const step = 256
	i := 0
	for i+step <= n && bytes.Equal(a[i:i+step], b[i:i+step]) {
		i += step
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// PatchOver reads content of size bytes, of what EncodeOver has made. The caller
// compares its digest, and closes the reader.
func (c *Codec) PatchOver(old io.ReaderAt, oldSize int64, delta io.Reader, size int64) (io.ReadCloser, error) {
	if size < 0 {
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, size)
	}
	d, err := c.decoders.get()
	if err != nil {
		return nil, err
	}
	if err := d.Reset(delta); err != nil {
		return nil, malformed(err)
	}
	return &patchOver{old: old, oldSize: oldSize, left: size, in: bufio.NewReaderSize(decoding{d}, 64<<10), done: func() { c.decoders.Put(d) }}, nil
}

// patchOver is one PatchOver under way.
type patchOver struct {
	old     io.ReaderAt
	oldSize int64
	in      *bufio.Reader
	left    int64  // of the content
	fresh   int64  // left of a literal
	copied  int64  // left of a copy
	behind  int64  // where the next byte of a copy, or of what is behind it, stands
	done    func() // gives the decoder back; nil once that was done, or must not be
}

// Read implements io.Reader.
func (p *patchOver) Read(b []byte) (n int, err error) {
	if p.fresh == 0 && p.copied == 0 {
		if err := p.token(); err != nil {
			return 0, err
		}
	}
	if p.copied > 0 {
		b = b[:min(int64(len(b)), p.copied)]
		if err := readAt(p.old, b, p.behind); err != nil {
			return 0, err
		}
		n = len(b)
		p.copied, p.behind = p.copied-int64(n), p.behind+int64(n)
	} else {
		n, err = p.in.Read(b[:min(int64(len(b)), p.fresh)])
		p.fresh -= int64(n)
		if errors.Is(err, io.EOF) {
			err = malformed(io.ErrUnexpectedEOF)
		}
	}
	p.left -= int64(n)
	return n, err
}

// token reads what comes next; io.EOF where all has come.
func (p *patchOver) token() error {
	t, err := binary.ReadUvarint(p.in)
	switch {
	case errors.Is(err, io.EOF) && p.left == 0:
		return io.EOF
	case err != nil:
		return malformed(notEOF(err))
	case t>>1 == 0:
		return fmt.Errorf("%w: a token without a meaning", ErrMalformed)
	case t>>1 > uint64(p.left):
		return fmt.Errorf("%w: more bytes than were announced", ErrMalformed)
	case t&1 == 0:
		p.fresh = int64(t >> 1)
		return nil
	}
	step, err := binary.ReadVarint(p.in)
	if err != nil {
		return malformed(notEOF(err))
	}
	n := int64(t >> 1)
	first := p.behind + step
	if first < 0 || first > p.oldSize || n > p.oldSize-first {
		return fmt.Errorf("%w: a copy from behind the old version", ErrMalformed)
	}
	p.behind, p.copied = first, n
	return nil
}

// notEOF: an end within something is no end.
func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Close lets go of the decoder; another one may use it if this one stood at its end.
func (p *patchOver) Close() error {
	if p.done != nil && p.left == 0 && p.fresh == 0 && p.copied == 0 {
		p.done()
	}
	p.done = nil
	return nil
}
