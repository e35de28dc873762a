package blob

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small makes packs and blobs of a size that tests can walk through.
var small = Options{PackLimit: 4 << 10, SmallLimit: 1 << 10}

func openAt(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	return openDisk(t, dir, o, realDisk())
}

func openDisk(t testing.TB, dir string, o Options, d disk) *Store {
	t.Helper()
	s, err := open(dir, o, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// content is n bytes that depend on seed alone.
func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = r.Read(b)
	return b
}

func put(t testing.TB, s *Store, b []byte) manifest.BlobRef {
	t.Helper()
	ref, err := s.Put(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func get(s *Store, d manifest.Digest) ([]byte, error) {
	r, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func mustHold(t testing.TB, s *Store, want []byte) {
	t.Helper()
	d := manifest.DigestOf(want)
	if !s.Has(d) {
		t.Fatalf("blob %s of %d bytes is not there", d.Short(), len(want))
	}
	if n, ok := s.Size(d); !ok || n != int64(len(want)) {
		t.Fatalf("Size = %d, %v, want %d", n, ok, len(want))
	}
	have, err := get(s, d)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Fatalf("blob %s has other content", d.Short())
	}
}

func flush(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// copyDir copies a store as a crash would leave it.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func packFiles(t testing.TB, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "packs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func name(i int) string { return fmt.Sprintf("case %d", i) }
