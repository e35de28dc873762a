package delta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// A delta is a row of tokens, uvarints whose lowest bit tells what they are:
//
//	count<<1|1  count chunks of the old version; a varint follows, how many
//	            chunks the first of them stands behind where the last copy ended
//	n<<1        n bytes that are new (n > 0)
//
// Of content up to SmallLimit the tokens come first, behind their length, and
// then all new bytes as zstd, whose dictionary is what was copied. Of larger
// content the new bytes stand behind their tokens, and zstd is around all.

// literalMost is how much is new, about, in one token of large content.
const literalMost = 256 << 10

// lookup finds the chunks of a signature.
func (s Signature) lookup() map[sum]int {
	m := make(map[sum]int, len(s.sums))
	for i, c := range s.sums {
		if _, ok := m[c]; !ok {
			m[c] = i
		}
	}
	return m
}

// tokens gathers the tokens of a delta, copies in a row as one.
type tokens struct {
	sig    Signature
	at     map[sum]int
	first  int // of the copy that is under way
	count  int
	behind int // where the last copy ended
}

func (s Signature) tokens() *tokens { return &tokens{sig: s, at: s.lookup()} }

// match tells whether a chunk stands in the old version, and counts it into
// the copy under way or begins a new one, whose predecessor it appends to out.
func (t *tokens) match(k sum, out []byte) (rest []byte, ok bool) {
	next := t.first + t.count
	if t.count > 0 && next < len(t.sig.sums) && t.sig.sums[next] == k {
		t.count++ // of equal chunks the one that comes next
		return out, true
	}
	i, ok := t.at[k]
	if !ok {
		return out, false
	}
	out = t.flush(out)
	t.first, t.count = i, 1
	return out, true
}

// flush appends the copy under way.
func (t *tokens) flush(out []byte) []byte {
	if t.count == 0 {
		return out
	}
	out = binary.AppendUvarint(out, uint64(t.count)<<1|1)
	out = binary.AppendVarint(out, int64(t.first-t.behind))
	t.behind, t.count = t.first+t.count, 0
	return out
}

// Encode returns the delta of content of at most SmallLimit bytes.
func (c *Codec) Encode(sig Signature, content []byte) ([]byte, error) {
	if len(content) > SmallLimit {
		return nil, fmt.Errorf("%d bytes are too many for one piece", len(content))
	}
	t := sig.tokens()
	var out, fresh, copied []byte
	run := 0
	literal := func() {
		if run > 0 {
			out = binary.AppendUvarint(out, uint64(run)<<1)
			run = 0
		}
	}
	err := c.gear.chunks(bytes.NewReader(content), int64(len(content)), sig.Average, func(b []byte) error {
		k := c.sums.of(b)
		_, known := t.at[k]
		if known && t.count == 0 { // new bytes are under way
			literal()
		}
		if out, known = t.match(k, out); known {
			copied = append(copied, b...)
			return nil
		}
		out = t.flush(out)
		fresh = append(fresh, b...)
		run += len(b)
		return nil
	})
	if err != nil {
		return nil, err
	}
	out = t.flush(out)
	literal()
	whole := binary.AppendUvarint(nil, uint64(len(out)))
	whole = append(whole, out...)
	if len(fresh) == 0 {
		return whole, nil
	}
	packed, err := c.Against(copied, fresh)
	return append(whole, packed...), err
}

// EncodeTo writes the delta of content of any size, which r reads.
func (c *Codec) EncodeTo(w io.Writer, sig Signature, r io.Reader, size int64) error {
	p, err := c.packer(w)
	if err != nil {
		return err
	}
	t := sig.tokens()
	var out, fresh []byte
	literal := func() error {
		if len(fresh) == 0 {
			return nil
		}
		out = binary.AppendUvarint(out, uint64(len(fresh))<<1)
		_, err := p.Write(append(out, fresh...))
		out, fresh = out[:0], fresh[:0]
		return err
	}
	err = c.gear.chunks(r, size, sig.Average, func(b []byte) error {
		k := c.sums.of(b)
		_, known := t.at[k]
		if known && t.count == 0 {
			if err := literal(); err != nil {
				return err
			}
		}
		if out, known = t.match(k, out); known {
			if len(out) < 4<<10 {
				return nil
			}
			_, err := p.Write(out)
			out = out[:0]
			return err
		}
		out = t.flush(out)
		fresh = append(fresh, b...)
		if len(fresh) >= literalMost {
			return literal()
		}
		return nil
	})
	if err != nil {
		return err
	}
	out = t.flush(out)
	if len(fresh) > 0 {
		err = literal()
	} else {
		_, err = p.Write(out)
	}
	if err != nil {
		return err
	}
	return p.Close()
}
