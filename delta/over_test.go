package delta_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"pgregory.net/rapid"

	"github.com/gatesync/gatesync/delta"
)

// over makes a delta between two versions that both ends hold.
func over(t interface {
	Helper()
	Fatal(...any)
}, c *delta.Codec, old, content []byte) []byte {
	t.Helper()
	var wire bytes.Buffer
	if err := c.EncodeOver(&wire, bytes.NewReader(old), int64(len(old)), bytes.NewReader(content), int64(len(content))); err != nil {
		t.Fatal(err)
	}
	return wire.Bytes()
}

func patched(c *delta.Codec, old, wire []byte, size int64) ([]byte, error) {
	r, err := c.PatchOver(bytes.NewReader(old), int64(len(old)), bytes.NewReader(wire), size)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestPatchOverIsTheNewVersion(t *testing.T) {
	c := delta.NewCodec()
	rapid.Check(t, func(t *rapid.T) {
		old, content := versions(t)
		if got, err := patched(c, old, over(t, c, old, content), int64(len(content))); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%v, %d bytes of %d", err, len(got), len(content))
		}
	})
}

// An edit costs what was edited, and not the chunk around it.
func TestOverCostsWhatWasEdited(t *testing.T) {
	c := delta.NewCodec()
	old := noise(1, 8<<20)
	edited := bytes.Clone(old)
	for i := range 10 {
		copy(edited[i*700_000+7:], "here somebody has edited some bytes")
	}
	edited = bytes.Join([][]byte{edited[:3<<20], noise(2, 10_000), edited[3<<20:]}, nil)
	wire := over(t, c, old, edited)
	t.Logf("%d bytes", len(wire))
	if len(wire) > 10_000+11*60 {
		t.Errorf("%d bytes for 10,350 that are new", len(wire))
	}
	if got, err := patched(c, old, wire, int64(len(edited))); err != nil || !bytes.Equal(got, edited) {
		t.Fatal(err, "is not the new version")
	}
}

func TestPatchOverKeepsToTheSize(t *testing.T) {
	c := delta.NewCodec()
	old := noise(3, 100_000)
	wire := over(t, c, old, bytes.Repeat(old, 50)) // a bomb
	if len(wire) > 1000 {
		t.Fatalf("%d bytes", len(wire))
	}
	for _, size := range []int64{-1, 0, 1, 100_000, 50*100_000 - 1, 50*100_000 + 1, 1 << 40} {
		if got, err := patched(c, old, wire, size); !errors.Is(err, delta.ErrMalformed) || int64(len(got)) > max(size, 0) {
			t.Errorf("to %d bytes: %v, %d bytes", size, err, len(got))
		}
	}
	for _, shorter := range [][]byte{nil, old[:1], old[:99_999]} {
		if _, err := patched(c, shorter, wire, 50*100_000); !errors.Is(err, delta.ErrMalformed) {
			t.Errorf("against %d bytes: %v", len(shorter), err)
		}
	}
	r, err := c.PatchOver(bytes.NewReader(old[:50]), int64(len(old)), bytes.NewReader(wire), 50*100_000)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, delta.ErrShort) {
		t.Errorf("an old version that was cut since: %v", err)
	}
}

func FuzzPatchOver(f *testing.F) {
	c := delta.NewCodec()
	old := noise(1, 20_000)
	edited := bytes.Join([][]byte{old[:9000], []byte("inserted"), old[12000:], old[:100]}, nil)
	f.Add(over(f, c, old, edited), uint32(len(edited)))
	f.Add(over(f, c, old, nil), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, size uint32) {
		size %= 4 << 20
		out, err := patched(c, old, b, int64(size))
		if len(out) > int(size) || err == nil && len(out) != int(size) {
			t.Fatalf("%v: %d bytes instead of %d", err, len(out), size)
		}
	})
}

func BenchmarkEncodeOver(b *testing.B) {
	c := delta.NewCodec()
	old := noise(1, 64<<20)
	edited := bytes.Clone(old)
	for i := range 10 {
		copy(edited[i*5_000_000+7:], "here somebody has edited some bytes")
	}
	b.SetBytes(int64(len(old)))
	for b.Loop() {
		over(b, c, old, edited)
	}
}
