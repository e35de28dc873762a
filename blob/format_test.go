package blob

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What a newer version has written would look like damage, and damage at a
// pack's end is cut off: such a store is not touched.
func TestPromise_NoLoss_NewerStoreIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(bytes.NewReader([]byte("content"))); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Flush(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "format"), []byte("2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pack := filepath.Join(dir, "packs", packName(1))
	f, err := os.OpenFile(pack, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("gsb2 of a later version"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	var newer *FormatError
	if _, err := Open(dir, Options{}); !errors.As(err, &newer) || newer.Format != "2" {
		t.Fatalf("opened: %v", err)
	}
	after, err := os.ReadFile(pack)
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("the pack was changed: %v", err)
	}
}
