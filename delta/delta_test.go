package delta_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/gatesync/gatesync/delta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// versions draws an old version and a new one that was made of it by edits.
func versions(t *rapid.T) (old, content []byte) {
	rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	text := rapid.Bool().Draw(t, "text")
	some := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			if b[i] = byte(rnd.Uint32()); text {
				b[i] = "<filter xpath='get-property(a)'/>\n"[int(b[i])%34]
			}
		}
		return b
	}
	old = some(rapid.IntRange(0, 60_000).Draw(t, "size"))
	content = bytes.Clone(old)
	for range rapid.IntRange(0, 6).Draw(t, "edits") {
		at := rnd.IntN(len(content) + 1)
		to := min(len(content), at+rnd.IntN(300))
		content = bytes.Join([][]byte{content[:at], some(rnd.IntN(300)), content[to:]}, nil)
	}
	if len(content) > 100 && rapid.Bool().Draw(t, "moved") {
		at := rnd.IntN(len(content))
		content = append(bytes.Clone(content[at:]), content[:at]...)
	}
	return old, content
}

func TestPatchOfDeltaIsTheNewVersion(t *testing.T) {
	c := delta.NewCodec()
	rapid.Check(t, func(t *rapid.T) {
		old, content := versions(t)
		sig, base, err := c.Sign(bytes.NewReader(old), int64(len(old)), bytes.NewReader(old))
		if err != nil {
			t.Fatal(err)
		}
		if sig, err = delta.ParseSignature(sig.Append(nil)); err != nil {
			t.Fatal(err)
		}
		d, err := c.Encode(sig, content)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Patch(base, d, len(content)); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("in one piece: %v, %d bytes of %d", err, len(got), len(content))
		}
		var wire, out bytes.Buffer
		if err := c.EncodeTo(&wire, sig, bytes.NewReader(content), int64(len(content))); err != nil {
			t.Fatal(err)
		}
		if err := c.PatchTo(&out, base, &wire, int64(len(content))); err != nil || !bytes.Equal(out.Bytes(), content) {
			t.Fatalf("streamed: %v, %d bytes of %d", err, out.Len(), len(content))
		}
	})
}

func TestRestoreOfAgainstIsTheNewVersion(t *testing.T) {
	c := delta.NewCodec()
	rapid.Check(t, func(t *rapid.T) {
		old, content := versions(t)
		d, err := c.Against(old, content)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Restore(old, d, len(content)); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%v, %d bytes of %d", err, len(got), len(content))
		}
		p, err := c.Pack(content)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Unpack(p, len(content)); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("packed: %v, %d bytes of %d", err, len(got), len(content))
		}
	})
}

// noise is content that nothing can compress.
func noise(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

func TestSizesOfDeltas(t *testing.T) {
	c := delta.NewCodec()
	xml := func(lines int) []byte {
		var b bytes.Buffer
		rnd := rand.New(rand.NewPCG(3, 3))
		for i := range lines {
			fmt.Fprintf(&b, "<property name=\"p%d\" value=\"%x\" scope=\"default\"/>\n", i, rnd.Uint64())
		}
		return b.Bytes()
	}
	line := func(b []byte) []byte { // of one line another value
		out := bytes.Clone(b)
		copy(out[len(out)/2:], "another")
		return out
	}
	big := noise(1, 4<<20)
	edited := bytes.Clone(big)
	for i := range 10 {
		edited[i*400_000+7] ^= 1
	}
	edited = bytes.Join([][]byte{edited[:1<<20], noise(2, 100_000), edited[1<<20:]}, nil)

	for _, tc := range []struct {
		name         string
		old, content []byte
		dict         bool
		most         int
	}{
		{"a line of 8 KB, both have it", xml(150), line(xml(150)), true, 60},
		{"a line of 8 KB", xml(150), line(xml(150)), false, 700},
		{"a line of 200 KB, both have it", xml(3600), line(xml(3600)), true, 100},
		{"a line of 800 KB, both have it", xml(12000), line(xml(12000)), true, 2000},
		{"unchanged", xml(150), xml(150), false, 10},
		{"10 bytes of 4 MB, and 100 KB inserted", big, edited, false, 100_000 + 11*3000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.dict {
				d, err := c.Against(tc.old, tc.content)
				if err != nil || len(d) > tc.most {
					t.Fatalf("%v: %d bytes, more than %d", err, len(d), tc.most)
				}
				t.Logf("%d bytes", len(d))
				return
			}
			sig, base, err := c.Sign(bytes.NewReader(tc.old), int64(len(tc.old)), bytes.NewReader(tc.old))
			if err != nil {
				t.Fatal(err)
			}
			if len(tc.content) <= delta.SmallLimit {
				d, err := c.Encode(sig, tc.content)
				if err != nil || len(d) > tc.most {
					t.Fatalf("%v: %d bytes, more than %d", err, len(d), tc.most)
				}
				t.Logf("%d bytes, the signature %d", len(d), len(sig.Append(nil)))
				return
			}
			var wire, out bytes.Buffer
			if err := c.EncodeTo(&wire, sig, bytes.NewReader(tc.content), int64(len(tc.content))); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d bytes, the signature %d", wire.Len(), len(sig.Append(nil)))
			if wire.Len() > tc.most {
				t.Fatalf("%d bytes, more than %d", wire.Len(), tc.most)
			}
			if err := c.PatchTo(&out, base, &wire, int64(len(tc.content))); err != nil || !bytes.Equal(out.Bytes(), tc.content) {
				t.Fatal(err, "is not the new version")
			}
		})
	}
}

// A result is never larger than the caller has said, whatever the bytes say.
func TestDecodersKeepToTheSize(t *testing.T) {
	c := delta.NewCodec()
	zeros := make([]byte, 1<<20)
	packed, err := c.Pack(zeros)
	if err != nil {
		t.Fatal(err)
	}
	if len(packed) > 1000 {
		t.Fatalf("a bomb of %d bytes", len(packed))
	}
	for _, size := range []int{-1, 0, 1, 1<<20 - 1, 1<<20 + 1} {
		if _, err := c.Unpack(packed, size); !errors.Is(err, delta.ErrMalformed) {
			t.Errorf("Unpack to %d bytes: %v", size, err)
		}
		if err := c.UnpackTo(&bytes.Buffer{}, bytes.NewReader(packed), int64(size)); !errors.Is(err, delta.ErrMalformed) {
			t.Errorf("UnpackTo %d bytes: %v", size, err)
		}
		if _, err := c.Restore(noise(1, 100), packed, size); !errors.Is(err, delta.ErrMalformed) {
			t.Errorf("Restore to %d bytes: %v", size, err)
		}
	}
	old := noise(4, 10_000)
	sig, base, err := c.Sign(bytes.NewReader(old), int64(len(old)), bytes.NewReader(old))
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Encode(sig, bytes.Repeat(old, 50))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{-1, 0, 10_000, 499_999, 500_001, 2 << 20} {
		if _, err := c.Patch(base, d, size); !errors.Is(err, delta.ErrMalformed) {
			t.Errorf("Patch to %d bytes: %v", size, err)
		}
	}
}

// An old version that was cut short since it was signed is an error.
func TestPatchOfAShorterBase(t *testing.T) {
	c := delta.NewCodec()
	old := noise(5, 50_000)
	sig, base, err := c.Sign(bytes.NewReader(old), int64(len(old)), bytes.NewReader(old[:100]))
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Encode(sig, old)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Patch(base, d, len(old)); !errors.Is(err, delta.ErrShort) {
		t.Fatalf("%v", err)
	}
	if _, _, err := c.Sign(bytes.NewReader(old), int64(len(old))+1, nil); !errors.Is(err, delta.ErrShort) {
		t.Fatalf("Sign: %v", err)
	}
}
