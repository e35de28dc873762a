package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// What came of a large blob before its source was cut off is kept for a while,
// so that it need not travel again. It is nothing but a saving: nobody is told
// that it is here, it is not flushed, it goes first where room is short, and
// the digest of the whole decides.
const (
	partialLeast = 1 << 20        // less is not worth a file
	partialMost  = 8              // files
	partialFor   = 24 * time.Hour // then it is garbage
)

func (s *Store) partialPath(d manifest.Digest) string {
	return filepath.Join(s.dir, "partial", d.String())
}

// Begun tells how much of the beginning of a blob is here from a PutKnown or
// PutRest whose reader failed; 0 for nothing.
func (s *Store) Begun(d manifest.Digest) int64 {
	st, err := os.Lstat(s.partialPath(d))
	if err != nil || !st.Mode().IsRegular() {
		return 0
	}
	return st.Size()
}

// PutRest is PutKnown of a blob whose first bytes are here already: r holds the
// rest. ErrNotBegun where they are not, any more; nothing was read then.
func (s *Store) PutRest(ref manifest.BlobRef, begun int64, r io.Reader) error {
	if s.isClosed() {
		return ErrClosed
	}
	f, err := s.claim(ref.Digest)
	if err != nil {
		return err
	}
	h := manifest.NewHasher()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 256<<10))
	if err == nil && (n != begun || begun > ref.Size) {
		err = fmt.Errorf("%w: %d bytes are here, not %d", ErrNotBegun, n, begun)
	}
	if err == nil {
		err = s.room.take(ref.Size - begun)
	}
	if err != nil {
		_ = f.Close()
		_ = s.disk.remove(f.Name())
		return err
	}
	return s.putSpooled(ref, f, h, begun, io.LimitReader(r, ref.Size-begun+1))
}

// claim takes what came of a blob away from others.
func (s *Store) claim(d manifest.Digest) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "put-")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Close(), s.disk.rename(s.partialPath(d), f.Name())); err != nil {
		_ = s.disk.remove(f.Name())
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNotBegun
		}
		return nil, err
	}
	return os.OpenFile(f.Name(), os.O_RDWR, 0)
}

// keepPartial keeps a spooled file whose source was cut off, unless more of the
// blob is here. Where it cannot, it is removed.
func (s *Store) keepPartial(path string, d manifest.Digest, size int64) {
	if size >= partialLeast && size > s.Begun(d) && !s.Has(d) {
		s.trimPartials(partialMost - 1)
		if s.disk.rename(path, s.partialPath(d)) == nil {
			return
		}
	}
	_ = s.disk.remove(path)
}

// dropPartial forgets what came of a blob before.
func (s *Store) dropPartial(d manifest.Digest) { _ = s.disk.remove(s.partialPath(d)) }

// trimPartials removes what is old, and the oldest of what are more than so
// many. It tells whether it removed any.
func (s *Store) trimPartials(most int) (some bool) {
	dir := filepath.Join(s.dir, "partial")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	var files []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for i, f := range files {
		if i >= most || time.Since(f.ModTime()) > partialFor {
			some = s.disk.remove(filepath.Join(dir, f.Name())) == nil || some
		}
	}
	return some
}
