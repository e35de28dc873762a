package blob

import (
	"bytes"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

// FuzzHeader: a header that is accepted is the one that would be written.
func FuzzHeader(f *testing.F) {
	good := make([]byte, headerSize)
	putHeader(good, manifest.DigestOf([]byte("x")), 1)
	f.Add(good)
	f.Add(sealOf(48))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, size, ok := parseHeader(b)
		if !ok {
			return
		}
		again := make([]byte, headerSize)
		putHeader(again, d, size)
		if size < 0 || size > maxRecord || !bytes.Equal(again, b[:headerSize]) {
			t.Errorf("size %d", size)
		}
	})
}
