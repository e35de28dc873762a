package delta_test

import (
	"bytes"
	"testing"

	"github.com/gatesync/gatesync/delta"
)

func FuzzSignature(f *testing.F) {
	c := delta.NewCodec()
	sig, _, _ := c.Sign(bytes.NewReader(noise(1, 5000)), 5000, nil)
	f.Add(sig.Append(nil), noise(2, 3000))
	f.Fuzz(func(t *testing.T, b, content []byte) {
		sig, err := delta.ParseSignature(b)
		if err != nil {
			return
		}
		if again, err := delta.ParseSignature(sig.Append(nil)); err != nil || again.Chunks() != sig.Chunks() {
			t.Fatalf("%v: %d chunks, and %d read back", err, sig.Chunks(), again.Chunks())
		}
		if len(content) > delta.SmallLimit {
			return
		}
		if _, err := c.Encode(sig, content); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzPatch(f *testing.F) {
	c := delta.NewCodec()
	old := noise(1, 20_000)
	sig, base, err := c.Sign(bytes.NewReader(old), int64(len(old)), bytes.NewReader(old))
	if err != nil {
		f.Fatal(err)
	}
	edited := bytes.Join([][]byte{old[:9000], []byte("inserted"), old[9000:]}, nil)
	d, err := c.Encode(sig, edited)
	if err != nil {
		f.Fatal(err)
	}
	var wire bytes.Buffer
	if err := c.EncodeTo(&wire, sig, bytes.NewReader(edited), int64(len(edited))); err != nil {
		f.Fatal(err)
	}
	f.Add(d, uint32(len(edited)))
	f.Add(wire.Bytes(), uint32(len(edited)))
	f.Fuzz(func(t *testing.T, b []byte, size uint32) {
		size %= delta.SmallLimit + 2
		if out, err := c.Patch(base, b, int(size)); err == nil && len(out) != int(size) {
			t.Fatalf("%d bytes instead of %d", len(out), size)
		}
		var out bytes.Buffer
		if err := c.PatchTo(&out, base, bytes.NewReader(b), int64(size)); out.Len() > int(size) || err == nil && out.Len() != int(size) {
			t.Fatalf("%v: %d bytes instead of %d", err, out.Len(), size)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	c := delta.NewCodec()
	old := []byte("<sequence name='main'><log/></sequence>")
	p, _ := c.Pack(old)
	d, _ := c.Against(old, old)
	f.Add(p, uint32(len(old)))
	f.Add(d, uint32(len(old)))
	f.Fuzz(func(t *testing.T, b []byte, size uint32) {
		size %= delta.SmallLimit + 2
		for _, out := range [][]byte{first(c.Unpack(b, int(size))), first(c.Restore(old, b, int(size)))} {
			if out != nil && len(out) != int(size) {
				t.Fatalf("%d bytes instead of %d", len(out), size)
			}
		}
		var out bytes.Buffer
		if err := c.UnpackTo(&out, bytes.NewReader(b), int64(size)); err == nil && out.Len() != int(size) {
			t.Fatalf("%d bytes instead of %d", out.Len(), size)
		}
	})
}

func first(b []byte, _ error) []byte { return b }
