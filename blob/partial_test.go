package blob

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

var errHungUp = errors.New("the connection was cut")

// cutAt is a source that breaks off.
func cutAt(b []byte, n int) io.Reader {
	return io.MultiReader(bytes.NewReader(b[:n]), failing{errHungUp})
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

func TestWhatCameBeforeACutIsKept(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.Repeat([]byte("0123456789abcdef"), 400_000)
	ref := manifest.BlobRef{Digest: manifest.DigestOf(b), Size: int64(len(b))}
	put := func(n int) {
		t.Helper()
		if err := s.PutKnown(ref, cutAt(b, n)); !errors.Is(err, errHungUp) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if err := s.PutRest(ref, 0, bytes.NewReader(b)); !errors.Is(err, ErrNotBegun) {
		t.Fatalf("the rest of nothing: %v", err)
	}
	if put(1000); s.Begun(ref.Digest) != 0 {
		t.Error("a thousand bytes were kept")
	}
	put(5_000_000)
	put(2_000_000) // less than is here
	if s.Begun(ref.Digest) != 5_000_000 || s.Has(ref.Digest) {
		t.Fatalf("%d bytes are begun", s.Begun(ref.Digest))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.PutRest(ref, 5_000_000, cutAt(b[5_000_000:], 500_000)); !errors.Is(err, errHungUp) || s.Begun(ref.Digest) != 5_500_000 {
		t.Fatalf("a second cut: %v, %d bytes", err, s.Begun(ref.Digest))
	}
	if err := s.PutRest(ref, 5_500_000, bytes.NewReader(b[5_500_000:])); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(ref.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("%v, %d bytes", err, len(got))
	}
	if s.Begun(ref.Digest) != 0 {
		t.Error("what came before is still there")
	}
}

// What is here decides nothing: a wrong beginning, too much or too little is
// found by the digest, and gone.
func TestAWrongBeginningIsForgotten(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := bytes.Repeat([]byte("fedcba9876543210"), 200_000)
	ref := manifest.BlobRef{Digest: manifest.DigestOf(b), Size: int64(len(b))}
	for _, tc := range []struct {
		name  string
		here  []byte
		begun int64
		rest  []byte
		want  error
	}{
		{"another beginning", bytes.Repeat([]byte("x"), 2<<20), 2 << 20, b[2<<20:], ErrMismatch},
		{"less than was said", b[:2<<20], 2<<20 + 1, b[2<<20+1:], ErrNotBegun},
		{"more than was said", b[:2<<20], 2<<20 - 1, b[2<<20-1:], ErrNotBegun},
		{"too much rest", b[:2<<20], 2 << 20, b[2<<20-1:], ErrMismatch},
		{"too little rest", b[:2<<20], 2 << 20, b[2<<20+1:], ErrMismatch},
		{"longer than the blob", append(bytes.Clone(b), 'x'), int64(len(b)) + 1, nil, ErrNotBegun},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := os.WriteFile(s.partialPath(ref.Digest), tc.here, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.PutRest(ref, tc.begun, bytes.NewReader(tc.rest)); !errors.Is(err, tc.want) {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			if s.Has(ref.Digest) || s.Begun(ref.Digest) != 0 {
				t.Error("something was kept")
			}
		})
	}
	if err := s.PutKnown(ref, bytes.NewReader(b[:len(b)-1])); !errors.Is(err, ErrMismatch) || s.Begun(ref.Digest) != 0 {
		t.Errorf("a source that ends early was kept: %v", err)
	}
}

func TestPartialsAreFewAndGoFirst(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var all []manifest.Digest
	for i := range partialMost + 3 {
		b := bytes.Repeat([]byte(fmt.Sprintf("%8d", i)), 200_000)
		d := manifest.DigestOf(b)
		if err := s.PutKnown(manifest.BlobRef{Digest: d, Size: int64(len(b))}, cutAt(b, partialLeast)); !errors.Is(err, errHungUp) {
			t.Fatal(err)
		}
		past := time.Now().Add(time.Duration(i-100) * time.Minute)
		if err := os.Chtimes(s.partialPath(d), past, past); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	for i, d := range all {
		if kept := s.Begun(d) > 0; kept != (i >= 3) {
			t.Errorf("of the %dth is kept: %v", i, kept)
		}
	}
	old := time.Now().Add(-partialFor - time.Hour)
	if err := os.Chtimes(s.partialPath(all[5]), old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(t.Context(), func(manifest.Digest) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if s.Begun(all[5]) != 0 || s.Begun(all[6]) == 0 {
		t.Error("what is old was kept, or what is not went")
	}
	// No room: partials go, and then there is some.
	s.room.free = func(string) (int64, error) {
		if s.Begun(all[6]) > 0 {
			return 0, nil
		}
		return 1 << 40, nil
	}
	s.room.granted = 0
	if _, err := s.PutBytes(bytes.Repeat([]byte("z"), 300_000)); err != nil {
		t.Error(err)
	}
}
