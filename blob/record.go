package blob

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/gatesync/gatesync/manifest"
)

// A record of a pack is a header and the content right behind it. Little endian:
//
//	0  magic "gsb1"
//	4  length of the content, 8 bytes
//	12 digest of the content, 32 bytes
//	44 CRC-32C of the above, 4 bytes
const (
	headerSize = 48
	magic      = "gsb1"
	// maxRecord bounds what a header may claim, and with it SmallLimit.
	maxRecord = 1 << 20
)

// record is where a blob's content lies in a pack.
type record struct {
	digest manifest.Digest
	offset int64 // of the content, behind the header
	size   int64
}

func (r record) end() int64 { return r.offset + r.size }

// putHeader fills b[:headerSize].
func putHeader(b []byte, d manifest.Digest, size int64) {
	copy(b, magic)
	binary.LittleEndian.PutUint64(b[4:], uint64(size))
	copy(b[12:44], d[:])
	binary.LittleEndian.PutUint32(b[44:], headerCRC(b))
}

// parseHeader reads what putHeader wrote; ok is false for anything else.
func parseHeader(b []byte) (d manifest.Digest, size int64, ok bool) {
	if len(b) < headerSize || string(b[:4]) != magic || binary.LittleEndian.Uint32(b[44:]) != headerCRC(b) {
		return d, 0, false
	}
	n := binary.LittleEndian.Uint64(b[4:])
	if n > maxRecord {
		return d, 0, false
	}
	copy(d[:], b[12:44])
	return d, int64(n), true
}

func headerCRC(b []byte) uint32 {
	return crc32.Checksum(b[:44], crc32.MakeTable(crc32.Castagnoli))
}

// walk calls found for each readable record of a pack of the given size, in
// order, and bad for each stretch between them. With verify it reads the
// contents too and takes only what matches its digest. Behind damage it goes
// on at the next record that verifies, so that what looks like a header inside
// of some content is not believed. It returns the end of the last record.
func walk(r io.ReaderAt, size int64, verify bool, found func(record), bad func(offset, n int64)) (end int64, err error) {
	buf := make([]byte, 64<<10)
	for end < size {
		rec, ok, err := readRecord(r, end, size, verify, buf)
		for at := end + 1; err == nil && !ok && at < size; at++ {
			if at, err = nextMagic(r, at, size, buf); err == nil {
				rec, ok, err = readRecord(r, at, size, true, buf)
			}
		}
		if err != nil {
			return end, err
		}
		if !ok {
			bad(end, size-end)
			return end, nil
		}
		if start := rec.offset - headerSize; start > end {
			bad(end, start-end)
		}
		found(rec)
		end = rec.end()
	}
	return end, nil
}

// readRecord reads the record that starts at offset; ok is false where none does.
func readRecord(r io.ReaderAt, offset, size int64, verify bool, buf []byte) (rec record, ok bool, err error) {
	if size-offset < headerSize {
		return rec, false, nil
	}
	var head [headerSize]byte
	if _, err := r.ReadAt(head[:], offset); err != nil && !errors.Is(err, io.EOF) {
		return rec, false, err
	}
	d, n, ok := parseHeader(head[:])
	if !ok || n > size-offset-headerSize {
		return rec, false, nil
	}
	rec = record{digest: d, offset: offset + headerSize, size: n}
	if !verify {
		return rec, true, nil
	}
	h := manifest.NewHasher()
	if _, err := io.CopyBuffer(h, io.NewSectionReader(r, rec.offset, n), buf); err != nil {
		return rec, false, err
	}
	return rec, h.Digest() == d, nil
}

// nextMagic returns the first offset at or behind from where a record might
// start; size where none can.
func nextMagic(r io.ReaderAt, from, size int64, buf []byte) (int64, error) {
	for from < size {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-from)], from)
		if err != nil && !errors.Is(err, io.EOF) {
			return from, err
		}
		if i := bytes.Index(buf[:n], []byte(magic)); i >= 0 {
			return from + int64(i), nil
		}
		if n < len(magic) || from+int64(n) >= size {
			break
		}
		from += int64(n - len(magic) + 1) // a magic may straddle two reads
	}
	return size, nil
}

// A seal stands behind the last record of a pack that was flushed as a whole:
// a header with a magic of its own and the pack's length. A pack without one
// is read through when the store is opened.
const sealMagic = "gse1"

func sealOf(end int64) []byte {
	b := make([]byte, headerSize)
	copy(b, sealMagic)
	binary.LittleEndian.PutUint64(b[4:], uint64(end))
	binary.LittleEndian.PutUint32(b[44:], headerCRC(b))
	return b
}

// sealed tells whether a pack file of the given size ends in its seal, and
// where its records end.
func sealed(r io.ReaderAt, size int64) (end int64, ok bool) {
	end = size - headerSize
	if end < 0 {
		return size, false
	}
	b := make([]byte, headerSize)
	if _, err := r.ReadAt(b, end); err != nil || !bytes.Equal(b, sealOf(end)) {
		return size, false
	}
	return end, true
}
