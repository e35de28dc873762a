package delta

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// token reads one: new bytes (count 0), or a copy of chunks from first on.
func token(r io.ByteReader, behind *uint64) (fresh, first, count uint64, err error) {
	t, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, 0, 0, err
	}
	if t&1 == 0 {
		if t == 0 {
			return 0, 0, 0, fmt.Errorf("%w: a token without a meaning", ErrMalformed)
		}
		return t >> 1, 0, 0, nil
	}
	step, err := binary.ReadVarint(r)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("%w: a copy without a place", ErrMalformed)
	}
	first, count = *behind+uint64(step), t>>1
	if count == 0 || count > MaxChunks || first > MaxChunks {
		return 0, 0, 0, fmt.Errorf("%w: a copy out of range", ErrMalformed)
	}
	*behind = first + count
	return 0, first, count, nil
}

// Patch makes content of size bytes, at most SmallLimit, of what Encode has
// made. The caller compares its digest.
func (c *Codec) Patch(base Base, delta []byte, size int) ([]byte, error) {
	if size < 0 || size > SmallLimit {
		return nil, fmt.Errorf("%w: %d bytes in one piece", ErrMalformed, size)
	}
	n, w := binary.Uvarint(delta)
	if w <= 0 || n > uint64(len(delta)-w) {
		return nil, fmt.Errorf("%w: its tokens are cut off", ErrMalformed)
	}
	ops, packed := delta[w:w+int(n)], delta[w+int(n):]

	// First what was copied: it is the dictionary of what is new.
	type piece struct{ fresh, old int }
	var pieces []piece
	var copied []byte
	var behind uint64
	fresh := 0
	for r := bytes.NewReader(ops); r.Len() > 0; {
		n, first, count, err := token(r, &behind)
		if err != nil {
			return nil, malformed(err)
		}
		if count == 0 {
			if n > uint64(size-fresh-len(copied)) {
				return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformed, size)
			}
			fresh += int(n)
			pieces = append(pieces, piece{fresh: int(n)})
			continue
		}
		off, length, err := base.span(first, count)
		if err != nil {
			return nil, err
		}
		if length > int64(size-fresh-len(copied)) {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformed, size)
		}
		at := len(copied)
		copied = append(copied, make([]byte, length)...)
		if err := readAt(base, copied[at:], off); err != nil {
			return nil, err
		}
		pieces = append(pieces, piece{old: int(length)})
	}
	if fresh+len(copied) != size {
		return nil, fmt.Errorf("%w: %d bytes instead of %d", ErrMalformed, fresh+len(copied), size)
	}
	var literals []byte
	if fresh > 0 {
		var err error
		if literals, err = c.Restore(copied, packed, fresh); err != nil {
			return nil, err
		}
	}
	out := make([]byte, 0, size)
	for _, p := range pieces {
		out = append(out, literals[:p.fresh]...)
		out = append(out, copied[:p.old]...)
		literals, copied = literals[p.fresh:], copied[p.old:]
	}
	return out, nil
}

// readAt reads the old version, which may have become shorter since.
func readAt(base io.ReaderAt, b []byte, off int64) error {
	n, err := base.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = ErrShort
	}
	return fmt.Errorf("read the old version: %w", err)
}

// PatchTo writes content of size bytes, of what EncodeTo has made. The caller
// compares its digest.
func (c *Codec) PatchTo(w io.Writer, base Base, delta io.Reader, size int64) error {
	return c.reading(delta, func(r io.Reader) error {
		in := bufio.NewReaderSize(r, 64<<10)
		buf := make([]byte, min(128<<10, max(size, 1)))
		var behind uint64
		for left := size; ; {
			fresh, first, count, err := token(in, &behind)
			if errors.Is(err, io.EOF) && left == 0 {
				return nil
			}
			if err != nil {
				return malformed(err)
			}
			var from io.Reader = in
			length := int64(fresh)
			if count > 0 {
				var off int64
				if off, length, err = base.span(first, count); err != nil {
					return err
				}
				from = io.NewSectionReader(base, off, length)
			}
			if length < 0 || length > left {
				return fmt.Errorf("%w: more than %d bytes", ErrMalformed, size)
			}
			n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.LimitReader(from, length)}, buf)
			if err != nil {
				return err
			}
			if n < length {
				return fmt.Errorf("%w: %d bytes are missing", ErrMalformed, length-n)
			}
			left -= length
		}
	})
}
