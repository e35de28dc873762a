package delta

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
)

const (
	// minAverage and maxAverage bound the average length of chunks.
	minAverage = 512
	maxAverage = 64 << 10
	// A chunk is at least a quarter and at most four times the average long.
	spread = 4
)

// AverageFor is the average chunk length that suits an old version of a size:
// short ones waste less around an edit, long ones make a short signature.
func AverageFor(size int64) int {
	avg := minAverage
	for avg < maxAverage && int64(avg)*int64(avg)*12 < size {
		avg *= 2
	}
	return avg
}

// gear is the table of the rolling hash. Both ends have to have the same one,
// so it is made from a fixed seed (splitmix64).
type gear [256]uint64

func newGear() *gear {
	var g gear
	x := uint64(0x67617465_73796e63)
	for i := range g {
		x += 0x9e3779b97f4a7c15
		z := x
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		g[i] = z ^ z>>31
	}
	return &g
}

// cut returns the length of the first chunk of b (FastCDC with normalized
// lengths: a cut is harder to find before the average and easier behind it).
// b holds at least spread*avg bytes, or is all that is left.
func (g *gear) cut(b []byte, avg int) int {
	least, most := avg/spread, min(avg*spread, len(b))
	if len(b) <= least {
		return len(b)
	}
	n := bits.Len(uint(avg)) - 1
	hard, easy := ^uint64(0)<<(64-n-2), ^uint64(0)<<(64-n+2)
	var h uint64
	middle := min(avg, most)
	for i, c := range b[least:middle] { // by range: without checks of bounds it is a third faster
		if h = h<<1 + g[c]; h&hard == 0 {
			return least + i + 1
		}
	}
	for i, c := range b[middle:most] {
		if h = h<<1 + g[c]; h&easy == 0 {
			return middle + i + 1
		}
	}
	return most
}

// chunks calls fn for each chunk of r in order, which has size bytes. The
// slice is fn's for the call only.
func (g *gear) chunks(r io.Reader, size int64, avg int, fn func([]byte) error) error {
	if avg < minAverage || avg > maxAverage {
		return fmt.Errorf("%w: chunks of %d bytes on average", ErrMalformed, avg)
	}
	most := avg * spread
	buf := make([]byte, min(int64(max(256<<10, 4*most)), max(size, 1)))
	have, left := 0, size
	for start := 0; ; {
		if have-start < most && left > 0 {
			have, start = copy(buf, buf[start:have]), 0
			n, err := io.ReadFull(r, buf[have:have+int(min(int64(len(buf)-have), left))])
			have, left = have+n, left-int64(n)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("%w: %d bytes are missing", ErrShort, left)
			}
			if err != nil {
				return err
			}
		}
		if start == have {
			return nil
		}
		n := g.cut(buf[start:have], avg)
		if err := fn(buf[start : start+n]); err != nil {
			return err
		}
		start += n
	}
}
