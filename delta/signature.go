package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	// sumSize is how long what a signature tells of a chunk is.
	sumSize = 6
	// MaxChunks bounds a signature: 1 TiB of the longest chunks.
	MaxChunks = 1 << 26
)

var (
	// ErrMalformed: the bytes are no signature or delta, or say that the result
	// is larger than the caller allows.
	ErrMalformed = errors.New("malformed delta")
	// ErrShort: content is shorter than was announced.
	ErrShort = errors.New("content is shorter than announced")
)

type sum [sumSize]byte

// sums makes sums. Nothing rests on them: who is deceived by one sends the
// whole. So they need not be digests, and are made by the processor's own
// instructions, at a fraction of the cost.
type sums struct{ table *crc32.Table }

func newSums() sums { return sums{crc32.MakeTable(crc32.Castagnoli)} }

func (m sums) of(b []byte) (s sum) {
	binary.BigEndian.PutUint32(s[:], crc32.Checksum(b, m.table))
	binary.BigEndian.PutUint16(s[4:], uint16(crc32.ChecksumIEEE(b)))
	return s
}

// Signature is what the holder of an old version tells about it.
type Signature struct {
	Average int // of the chunks' lengths
	sums    []sum
}

// Chunks counts them.
func (s Signature) Chunks() int { return len(s.sums) }

// Append appends the signature's wire form to b.
func (s Signature) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.Average))
	for _, c := range s.sums {
		b = append(b, c[:]...)
	}
	return b
}

// ParseSignature reads what Append wrote.
func ParseSignature(b []byte) (Signature, error) {
	avg, n := binary.Uvarint(b)
	if n <= 0 || avg < minAverage || avg > maxAverage || avg&(avg-1) != 0 || (len(b)-n)%sumSize != 0 {
		return Signature{}, fmt.Errorf("%w: no signature", ErrMalformed)
	}
	s := Signature{Average: int(avg), sums: make([]sum, (len(b)-n)/sumSize)}
	for i := range s.sums {
		copy(s.sums[i][:], b[n+i*sumSize:])
	}
	return s, nil
}

// Base is an old version as its holder uses it: where each chunk begins, and
// at last where the content ends.
type Base struct {
	io.ReaderAt
	offsets []int64
}

// Sign cuts an old version of size bytes, which r reads. The Base reads its
// content through at, as Patch needs it.
func (c *Codec) Sign(r io.Reader, size int64, at io.ReaderAt) (Signature, Base, error) {
	sig := Signature{Average: AverageFor(size)}
	base := Base{ReaderAt: at, offsets: []int64{0}}
	var end int64
	err := c.gear.chunks(r, size, sig.Average, func(b []byte) error {
		if len(sig.sums) == MaxChunks {
			return fmt.Errorf("%w: more than %d chunks", ErrMalformed, MaxChunks)
		}
		end += int64(len(b))
		sig.sums = append(sig.sums, c.sums.of(b))
		base.offsets = append(base.offsets, end)
		return nil
	})
	return sig, base, err
}

// span tells where count chunks from first on lie.
func (b Base) span(first, count uint64) (off, size int64, err error) {
	n := uint64(max(len(b.offsets)-1, 0))
	if first > n || count > n-first {
		return 0, 0, fmt.Errorf("%w: chunk %d of %d", ErrMalformed, first+count, n)
	}
	return b.offsets[first], b.offsets[first+count] - b.offsets[first], nil
}
