package target

import (
	"encoding/binary"

	"github.com/zeebo/blake3"

	"github.com/gatesync/gatesync/manifest"
)

// sumSize is what a target tells about each entry.
const sumSize = 8

// sumOf is a short digest of a path and what stands there. The nonce, another
// one for each session, sees to it that two entries that look alike by chance
// do so only once; the root digest finds out when they do.
func sumOf(nonce []byte, p manifest.Path, e manifest.Entry) uint64 {
	b := make([]byte, 0, 128)
	b = append(b, nonce...)
	b = append(b, byte(e.Kind))
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendUvarint(b, uint64(e.Size))
	b = append(b, e.Digest[:]...)
	b = append(b, p...)
	d := blake3.Sum256(b)
	return binary.BigEndian.Uint64(d[:])
}
