package blob

import (
	"encoding/binary"
	"testing"
)

func benchPut(b *testing.B, n, size int) {
	s := openAt(b, b.TempDir(), Options{})
	blob := content(1, size)
	seq := uint64(0)
	b.SetBytes(int64(n * size))
	b.ReportAllocs()
	for b.Loop() {
		for range n {
			seq++
			binary.LittleEndian.PutUint64(blob, seq)
			if _, err := s.PutBytes(blob); err != nil {
				b.Fatal(err)
			}
		}
		flush(b, s)
	}
}

func BenchmarkPut1000Of8KBAndFlush(b *testing.B)  { benchPut(b, 1000, 8<<10) }
func BenchmarkPut10000Of6KBAndFlush(b *testing.B) { benchPut(b, 10000, 6<<10) }

func BenchmarkOpen50000Of8KB(b *testing.B) {
	dir := b.TempDir()
	s := openAt(b, dir, Options{})
	blob := content(1, 8<<10)
	for i := range 50_000 {
		binary.LittleEndian.PutUint64(blob, uint64(i))
		if _, err := s.PutBytes(blob); err != nil {
			b.Fatal(err)
		}
	}
	closeStore(b, s)
	for b.Loop() {
		s := openAt(b, dir, Options{})
		if n := s.Stats().Blobs; n != 50_000 {
			b.Fatal(n)
		}
		closeStore(b, s)
	}
}

func BenchmarkRead8KB(b *testing.B) {
	s := openAt(b, b.TempDir(), Options{})
	ref := put(b, s, content(1, 8<<10))
	b.SetBytes(8 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := get(s, ref.Digest); err != nil {
			b.Fatal(err)
		}
	}
}
