package transport

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/zeebo/blake3"
)

// Sizes of a token's parts, in bytes.
const (
	tokenPrefix      = "gs1-"
	tokenIDSize      = 10
	tokenSecretSize  = 20
	tokenFingerprint = 32
	tokenChecksum    = 4
)

// Token is what a person carries from a member to a joiner: who invites (the
// CA's fingerprint, so that the joiner knows whom it talks to) and the proof of
// being invited. It is a secret until it is used up.
type Token struct {
	ID          string // "k-" and hex: names the token in the log
	Secret      []byte
	Fingerprint string // of the CA, as Fingerprint prints it
}

// NewToken makes a token that nobody else has.
func NewToken(caPEM []byte) (Token, error) {
	fp, err := Fingerprint(caPEM)
	if err != nil {
		return Token{}, err
	}
	b := make([]byte, tokenIDSize+tokenSecretSize)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return Token{ID: "k-" + hex.EncodeToString(b[:tokenIDSize]), Secret: b[tokenIDSize:], Fingerprint: fp}, nil
}

// SecretDigest is what the log keeps of a token's secret.
func SecretDigest(secret []byte) []byte {
	d := blake3.Sum256(secret)
	return d[:]
}

// String prints the token as ParseToken reads it: "gs1-" and 106 letters and
// digits. Every byte is covered by a checksum.
func (t Token) String() string {
	id, err1 := hex.DecodeString(strings.TrimPrefix(t.ID, "k-"))
	fp, err2 := hex.DecodeString(t.Fingerprint)
	if err1 != nil || err2 != nil || len(id) != tokenIDSize || len(t.Secret) != tokenSecretSize || len(fp) != tokenFingerprint {
		return "(invalid token)"
	}
	b := bytes.Join([][]byte{id, t.Secret, fp}, nil)
	return tokenPrefix + tokenEncoding().EncodeToString(checksummed(b))
}

// GoString keeps the secret out of logs and test failures that print with %#v.
func (t Token) GoString() string { return "Token{" + t.ID + "}" }

// ParseToken reads a token that a person typed or pasted: spaces, line breaks
// and the case of letters do not matter.
func ParseToken(s string) (Token, error) {
	s = strings.ToLower(strings.Join(strings.Fields(s), ""))
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		return Token{}, &TokenError{Why: fmt.Sprintf("does not begin with %q", tokenPrefix)}
	}
	const size = tokenIDSize + tokenSecretSize + tokenFingerprint + tokenChecksum
	want := tokenEncoding().EncodedLen(size)
	if len(rest) != want {
		return Token{}, &TokenError{Typo: true, Why: fmt.Sprintf("has %d characters instead of %d", len(tokenPrefix)+len(rest), len(tokenPrefix)+want)}
	}
	b, err := tokenEncoding().DecodeString(rest)
	if err != nil {
		return Token{}, &TokenError{Typo: true, Why: "has a character that no token has"}
	}
	body := b[:size-tokenChecksum]
	// The letters hold a few bits more than the bytes need; encoding again
	// refuses a typo that hides in them.
	if !bytes.Equal(checksummed(body), b) || tokenEncoding().EncodeToString(b) != rest {
		return Token{}, &TokenError{Typo: true, Why: "does not fit its checksum"}
	}
	return Token{
		ID:          "k-" + hex.EncodeToString(body[:tokenIDSize]),
		Secret:      body[tokenIDSize : tokenIDSize+tokenSecretSize],
		Fingerprint: hex.EncodeToString(body[tokenIDSize+tokenSecretSize:]),
	}, nil
}

func tokenEncoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

func checksummed(b []byte) []byte {
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return append(bytes.Clone(b), byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
}
