package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

func readAll(s *Store, d manifest.Digest) ([]byte, error) {
	r, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// TestPromise_NoLoss_EveryDamageIsFoundAndHealed flips and cuts the files of a
// store: what it still answers for is whole, and once the rest was put again it
// is as good as new.
func TestPromise_NoLoss_EveryDamageIsFoundAndHealed(t *testing.T) {
	opts := Options{PackLimit: 4 << 10, SmallLimit: 1 << 10}
	rnd := rand.New(rand.NewPCG(1, 1))
	content := map[manifest.Digest][]byte{}
	master := t.TempDir()
	s, err := Open(master, opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		b := bytes.Repeat(fmt.Appendf(nil, "%d.", i), 1+rnd.IntN(150))
		if i%15 == 0 {
			b = bytes.Repeat(b, 20)
		}
		if _, err := s.PutBytes(b); err != nil {
			t.Fatal(err)
		}
		content[manifest.DigestOf(b)] = b
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	found := 0
	for round := range 60 {
		dir := filepath.Join(t.TempDir(), "s")
		if err := os.CopyFS(dir, os.DirFS(master)); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "[pl]*", "*"))
		if err != nil || len(files) < 8 {
			t.Fatal(files, err)
		}
		what := hurtFile(t, rnd, files[rnd.IntN(len(files))])
		s, err := Open(dir, opts)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		err = s.Verify(context.Background(), func(ref manifest.BlobRef, err error) {
			if err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s: %v", what, err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		missing := 0
		for d, b := range content {
			if !s.Has(d) {
				missing++
				continue
			}
			if got, err := readAll(s, d); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("%s: a blob that it answers for: %v", what, err)
			}
		}
		if missing > 0 {
			found++
			select {
			case <-s.Hurt():
			default:
				t.Fatalf("%s: %d are missing, and it is not hurt", what, missing)
			}
		}
		if err := s.Repair(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, b := range content {
			if _, err := s.PutBytes(b); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(dir, opts); err != nil || len(s.Damage()) > 0 {
			t.Fatalf("%s: round %d: healed, and opens with %v, damage %v", what, round, err, s.Damage())
		}
		for d, b := range content {
			if got, err := readAll(s, d); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("%s: a healed blob: %v", what, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if found < 20 {
		t.Errorf("only %d of 60 damages hurt anything", found)
	}
}

// hurtFile flips a byte of a file, or cuts it.
func hurtFile(t *testing.T, rnd *rand.Rand, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := rnd.IntN(len(b))
	what := fmt.Sprintf("%s flipped at %d", filepath.Base(file), at)
	if rnd.IntN(4) == 0 {
		what, b = fmt.Sprintf("%s cut to %d", filepath.Base(file), at), b[:at]
	} else {
		b[at] ^= byte(1 << rnd.IntN(8))
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return what
}

// TestScrubComesByEverywhere: wherever it begins, everything is read, at the
// given pace.
func TestScrubComesByEverywhere(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var want int64
	for i := range 50 {
		ref, err := s.PutBytes(fmt.Appendf(nil, "blob %d", i))
		if err != nil {
			t.Fatal(err)
		}
		want += ref.Size
	}
	var paced int64
	seen := map[manifest.Digest]bool{}
	err = s.Scrub(context.Background(), func(n int) error { paced += int64(n); return nil },
		func(ref manifest.BlobRef, err error) { seen[ref.Digest] = err == nil })
	if err != nil || len(seen) != 50 || paced != want {
		t.Errorf("%d blobs, %d of %d bytes, %v", len(seen), paced, want, err)
	}
	enough := errors.New("enough")
	if err := s.Scrub(context.Background(), func(int) error { return enough }, func(manifest.BlobRef, error) { t.Error("read") }); !errors.Is(err, enough) {
		t.Error(err)
	}
}
