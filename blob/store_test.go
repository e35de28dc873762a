package blob

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/gatesync/gatesync/manifest"
)

func TestRoundTripOfEverySizeAndAfterReopen(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, small)
	var all [][]byte
	for i, n := range []int{0, 1, 47, 48, 1023, 1024, 1025, 5000, 300 << 10} {
		all = append(all, content(uint64(i), n))
	}
	for _, b := range all {
		ref := put(t, s, b)
		if ref != (manifest.BlobRef{Digest: manifest.DigestOf(b), Size: int64(len(b))}) {
			t.Fatalf("Put of %d bytes says %v", len(b), ref)
		}
		mustHold(t, s, b)
	}
	flush(t, s)
	before, id := s.Stats(), s.ID()
	closeStore(t, s)

	s = openAt(t, dir, small)
	if s.ID() != id {
		t.Errorf("the id changed from %s to %s", id, s.ID())
	}
	if after := s.Stats(); after.Blobs != before.Blobs || after.Bytes != before.Bytes || after.Blobs != len(all) || after.Disk != before.Disk {
		t.Errorf("Stats %+v, were %+v", after, before)
	}
	for _, b := range all {
		mustHold(t, s, b)
	}
	if d := s.Damage(); d != nil {
		t.Errorf("damage without cause: %v", d)
	}
}

func TestWipedStoreHasAnotherID(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, Options{})
	first := s.ID()
	closeStore(t, s)
	if err := os.RemoveAll(filepath.Join(dir, "packs")); err != nil {
		t.Fatal(err)
	}
	if second := openAt(t, dir, Options{}).ID(); second == first || second == "" {
		t.Fatalf("the id of a store that lost its packs is still %q", second)
	}
}

func TestSameContentIsStoredOnce(t *testing.T) {
	for _, size := range []int{800, 200 << 10} {
		s := openAt(t, t.TempDir(), small)
		b := content(1, size)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if _, err := s.Put(bytes.NewReader(b)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		flush(t, s)
		if st := s.Stats(); st.Blobs != 1 || st.Disk > int64(size+headerSize) {
			t.Errorf("16 puts of %d bytes: %+v", size, st)
		}
		mustHold(t, s, b)
		left, err := os.ReadDir(filepath.Join(s.dir, "tmp"))
		if err != nil || len(left) != 0 {
			t.Errorf("left in tmp: %v %v", left, err)
		}
	}
}

func TestPutKnownVerifies(t *testing.T) {
	for _, size := range []int{0, 700, 50 << 10} {
		s := openAt(t, t.TempDir(), small)
		b := content(7, size)
		ref := manifest.BlobRef{Digest: manifest.DigestOf(b), Size: int64(size)}
		wrong := append(content(8, size), 'x')
		bad := []struct {
			ref manifest.BlobRef
			b   []byte
		}{
			{ref, wrong},
			{ref, append(bytes.Clone(b), 'x')},
			{manifest.BlobRef{Digest: ref.Digest, Size: ref.Size + 1}, b},
			{manifest.BlobRef{Digest: ref.Digest, Size: -1}, b},
		}
		for i, c := range bad {
			err := s.PutKnown(c.ref, bytes.NewReader(c.b))
			var mismatch *MismatchError
			if !errors.Is(err, ErrMismatch) || !errors.As(err, &mismatch) || mismatch.Want != c.ref {
				t.Errorf("size %d, %s: %v", size, name(i), err)
			}
		}
		if st := s.Stats(); st.Blobs != 0 || st.Disk != 0 {
			t.Fatalf("size %d: kept what did not match: %+v", size, st)
		}
		for range 2 { // the second finds it here, and reads all the same
			r := bytes.NewReader(b)
			if err := s.PutKnown(ref, r); err != nil {
				t.Fatal(err)
			}
			if r.Len() != 0 {
				t.Fatalf("size %d: %d bytes were not read", size, r.Len())
			}
		}
		mustHold(t, s, b)
	}
}

func TestSourceThatBreaksIsNotStored(t *testing.T) {
	s := openAt(t, t.TempDir(), small)
	for _, size := range []int{100, 5000} {
		for _, broken := range []error{io.ErrUnexpectedEOF, io.ErrClosedPipe} {
			r := io.MultiReader(bytes.NewReader(content(1, size)), iotest.ErrReader(broken))
			if _, err := s.Put(r); !errors.Is(err, broken) {
				t.Errorf("Put of a source that ends with %v: %v", broken, err)
			}
		}
	}
	if st := s.Stats(); st.Blobs != 0 {
		t.Errorf("stored a part: %+v", st)
	}
}

func TestNotFound(t *testing.T) {
	s := openAt(t, t.TempDir(), small)
	d := manifest.DigestOf([]byte("nobody has this"))
	_, err := s.Open(d)
	var missing *NotFoundError
	if !errors.Is(err, ErrNotFound) || !errors.As(err, &missing) || missing.Digest != d {
		t.Fatalf("Open: %v", err)
	}
	if s.Has(d) {
		t.Fatal("Has")
	}
}

func TestReaderAtAndReaderAfterClose(t *testing.T) {
	s := openAt(t, t.TempDir(), small)
	for _, size := range []int{900, 9000} {
		b := content(3, size)
		ref := put(t, s, b)
		r, err := s.Open(ref.Digest)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		part := make([]byte, 100)
		if _, err := r.ReadAt(part, 333); err != nil || !bytes.Equal(part, b[333:433]) || r.Size() != int64(size) {
			t.Errorf("ReadAt: %v", err)
		}
		if n, err := r.ReadAt(part, int64(size-10)); n != 10 || !errors.Is(err, io.EOF) {
			t.Errorf("ReadAt over the end: %d %v", n, err)
		}
		defer func() {
			if have, err := io.ReadAll(r); err != nil || !bytes.Equal(have, b) {
				t.Errorf("reader of %d bytes after the store's Close: %v", size, err)
			}
		}()
	}
	closeStore(t, s)
	if _, err := s.PutBytes([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("PutBytes after Close: %v", err)
	}
	if _, err := s.Put(bytes.NewReader(make([]byte, 5000))); !errors.Is(err, ErrClosed) {
		t.Errorf("Put after Close: %v", err)
	}
	if err := s.Flush(); !errors.Is(err, ErrClosed) {
		t.Errorf("Flush after Close: %v", err)
	}
	if _, err := s.Open(manifest.DigestOf(nil)); !errors.Is(err, ErrClosed) {
		t.Errorf("Open after Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// corrupt flips a byte in the middle of a file.
func corrupt(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func TestCorruptContentIsToldAndHealed(t *testing.T) {
	for _, size := range []int{900, 9000} {
		s := openAt(t, t.TempDir(), small)
		good, b := content(4, 500), content(5, size)
		put(t, s, good)
		ref := put(t, s, b)
		flush(t, s)
		if size > 1024 {
			corrupt(t, s.loosePath(ref.Digest), 77)
		} else {
			corrupt(t, s.packPath(1), headerSize+500+headerSize+77)
		}
		var bad []manifest.BlobRef
		err := s.Verify(t.Context(), func(r manifest.BlobRef, err error) {
			if err != nil {
				if !errors.Is(err, ErrCorrupt) {
					t.Errorf("Verify: %v", err)
				}
				bad = append(bad, r)
			}
		})
		if err != nil || len(bad) != 1 || bad[0] != ref {
			t.Fatalf("Verify: %v, found %v", err, bad)
		}
		if s.Has(ref.Digest) {
			t.Fatal("still answers for what is corrupt")
		}
		if err := s.PutKnown(ref, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		flush(t, s)
		mustHold(t, s, b)
		mustHold(t, s, good)
		closeStore(t, s)
		mustHold(t, openAt(t, s.dir, small), b)
	}
}

func TestCorruptionIsToldWithTheLastByte(t *testing.T) {
	s := openAt(t, t.TempDir(), small)
	ref := put(t, s, content(5, 9000))
	flush(t, s)
	if err := os.Truncate(s.loosePath(ref.Digest), 8000); err != nil {
		t.Fatal(err)
	}
	var e *CorruptError
	if _, err := get(s, ref.Digest); !errors.As(err, &e) || e.Digest != ref.Digest {
		t.Fatalf("a file cut short: %v", err)
	}
	ref = put(t, s, content(6, 9000))
	flush(t, s)
	corrupt(t, s.loosePath(ref.Digest), 0)
	r, err := s.Open(ref.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// io.ReadFull never looks for io.EOF: it must hear of it all the same.
	if _, err := io.CopyN(io.Discard, r, 8999); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("the last byte came with %v", err)
	}
}

func TestRemovedFileIsTold(t *testing.T) {
	s := openAt(t, t.TempDir(), small)
	b := content(5, 9000)
	ref := put(t, s, b)
	flush(t, s)
	if err := os.Remove(s.loosePath(ref.Digest)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(ref.Digest); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("first Open: %v", err)
	}
	if _, err := s.Open(ref.Digest); !errors.Is(err, ErrNotFound) || s.Has(ref.Digest) {
		t.Fatalf("second Open: %v", err)
	}
	put(t, s, b)
	mustHold(t, s, b)
}
