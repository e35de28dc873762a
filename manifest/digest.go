package manifest

import (
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"
)

// DigestSize is the length of a Digest in bytes.
const DigestSize = 32

// Digest is the BLAKE3-256 of content. The zero Digest means "none": what has
// no content (a directory) has no digest.
type Digest [DigestSize]byte

// DigestOf returns the digest of content that is held in memory.
func DigestOf(content []byte) Digest { return blake3.Sum256(content) }

// ParseDigest reads the 64 hex digits that String prints.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*DigestSize {
		return d, fmt.Errorf("digest %q: want %d hex digits, have %d characters", s, 2*DigestSize, len(s))
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("digest %q: %w", s, err)
	}
	return d, nil
}

// DigestFromBytes takes a digest off the wire; b must be DigestSize long.
func DigestFromBytes(b []byte) (Digest, error) {
	var d Digest
	if len(b) != DigestSize {
		return d, fmt.Errorf("digest of %d bytes, want %d", len(b), DigestSize)
	}
	copy(d[:], b)
	return d, nil
}

// IsZero tells whether d is the absent digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// String prints all 64 hex digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short prints the first 12 hex digits, for people.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// Hasher computes a Digest of content that is streamed through it. It is an
// io.Writer whose Write never fails. Not safe for concurrent use.
type Hasher struct{ h *blake3.Hasher }

// NewHasher starts an empty digest.
func NewHasher() Hasher { return Hasher{h: blake3.New()} }

// Write adds content to the digest.
func (h Hasher) Write(p []byte) (int, error) { return h.h.Write(p) }

// Digest returns the digest of everything written so far.
func (h Hasher) Digest() Digest {
	var d Digest
	h.h.Sum(d[:0])
	return d
}
