package blob

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/gatesync/gatesync/manifest"
)

// Reader reads one blob. Read is for one goroutine; ReadAt may run beside it
// and is not verified. A Reader keeps its blob readable until Close, whatever
// Collect does.
type Reader struct {
	section *io.SectionReader
	store   *Store // told of corruption
	digest  manifest.Digest
	at      place
	file    string
	hash    manifest.Hasher
	pos     int64 // of Read
	err     error // that Read ended with
	close   func() error
}

// Open opens a blob for reading; ErrNotFound (NotFoundError). ErrCorrupt where
// somebody has removed its file.
func (s *Store) Open(d manifest.Digest) (*Reader, error) {
	// A loose file may be renamed or collected between the look and the open.
	for {
		r, err := s.open(d)
		if !errors.Is(err, fs.ErrNotExist) {
			return r, err
		}
	}
}

func (s *Store) open(d manifest.Digest) (*Reader, error) {
	at, p, err := s.acquire(d)
	if err != nil {
		return nil, err
	}
	r := &Reader{store: s, digest: d, at: at, hash: manifest.NewHasher()}
	if p != nil {
		r.file, r.close = p.file.Name(), func() error { p.release(); return nil }
		r.section = io.NewSectionReader(p.file, int64(at.offset), at.size)
		return r, nil
	}
	path := s.loosePath(d)
	if at.pack == pending {
		path = s.pendingPath(d)
	}
	r.file = path
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && s.lostFile(d, at, path) {
			err = r.corrupt()
		}
		return nil, err
	}
	r.close = f.Close
	r.section = io.NewSectionReader(f, 0, at.size)
	return r, nil
}

// acquire finds a blob, and holds on to its pack where it lies in one.
func (s *Store) acquire(d manifest.Digest) (place, *pack, error) {
	if _, ok := s.lookup(d); !ok && !s.isClosed() {
		return place{}, nil, &NotFoundError{d}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	at, ok := s.index[d]
	switch {
	case s.closed:
		return at, nil, ErrClosed
	case !ok:
		return at, nil, &NotFoundError{d}
	case at.pack == loose || at.pack == pending:
		return at, nil, nil
	}
	p := s.packs[at.pack]
	p.refs.Add(1)
	return at, p, nil
}

// lostFile tells whether the file of a loose blob is really missing, not just
// renamed.
func (s *Store) lostFile(d manifest.Digest, at place, path string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock() // under mu alone files are renamed
	_, err := os.Lstat(path)
	return s.index[d] == at && errors.Is(err, fs.ErrNotExist)
}

// Read implements io.Reader. The Read that delivers the last byte verifies the
// whole, and returns ErrCorrupt (CorruptError) beside that byte.
func (r *Reader) Read(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.ReadAt(b[:min(int64(len(b)), r.Size()-r.pos)], r.pos)
	_, _ = r.hash.Write(b[:n]) // never fails
	r.pos += int64(n)
	switch {
	case r.pos == r.Size():
		r.err = io.EOF
		if r.hash.Digest() != r.digest {
			r.err = r.corrupt()
			return n, r.err
		}
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	case errors.Is(err, io.EOF): // the file is shorter than it was
		r.err = r.corrupt()
		return n, r.err
	}
	return n, err
}

func (r *Reader) corrupt() error {
	err := &CorruptError{Digest: r.digest, File: r.file}
	r.store.log.Error("blob store: " + err.Error())
	r.store.forgetCorrupt(r.digest, r.at)
	return err
}

// ReadAt implements io.ReaderAt. What it reads is not verified.
func (r *Reader) ReadAt(b []byte, off int64) (int, error) { return r.section.ReadAt(b, off) }

// Size is the blob's.
func (r *Reader) Size() int64 { return r.section.Size() }

// Close lets go of the blob.
func (r *Reader) Close() error {
	if r.close == nil {
		return os.ErrClosed
	}
	err := r.close()
	r.close = nil
	return err
}
