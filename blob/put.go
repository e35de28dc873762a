package blob

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/gatesync/gatesync/manifest"
)

// Put stores what r holds, once, and says what it is. It is whole from then
// on, and durable after the next Flush. ErrNoRoom (RoomError) where the disk
// is too full; nothing is kept then.
func (s *Store) Put(r io.Reader) (manifest.BlobRef, error) {
	buf := s.buffer()
	defer s.buffers.Put(buf)
	n, err := fill(r, (*buf)[headerSize:])
	if errors.Is(err, io.EOF) {
		return s.putSmall((*buf)[:headerSize+n])
	}
	if err != nil {
		return manifest.BlobRef{}, err
	}
	return s.putLarge(io.MultiReader(bytes.NewReader((*buf)[headerSize:]), r))
}

// PutBytes is Put for content in memory, which it does not keep.
func (s *Store) PutBytes(b []byte) (manifest.BlobRef, error) {
	if int64(len(b)) > s.opts.SmallLimit {
		return s.putLarge(bytes.NewReader(b))
	}
	buf := s.buffer()
	defer s.buffers.Put(buf)
	n := copy((*buf)[headerSize:], b)
	return s.putSmall((*buf)[:headerSize+n])
}

// PutKnown stores what r holds if that is ref: ErrMismatch (MismatchError)
// otherwise, and nothing is kept. It reads r to its end, but not further than
// a byte behind ref.Size, also where the blob is here already: the sender is
// not left hanging.
func (s *Store) PutKnown(ref manifest.BlobRef, r io.Reader) error {
	if ref.Size < 0 {
		return &MismatchError{Want: ref}
	}
	r = io.LimitReader(r, ref.Size+1)
	if ref.Size > s.opts.SmallLimit {
		return s.putKnownLarge(ref, r)
	}
	buf := s.buffer()
	defer s.buffers.Put(buf)
	n, err := fill(r, (*buf)[headerSize:])
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	content := (*buf)[headerSize : headerSize+n]
	if have := (manifest.BlobRef{Digest: manifest.DigestOf(content), Size: int64(n)}); have != ref {
		return &MismatchError{Want: ref, Have: have}
	}
	return s.append(ref.Digest, (*buf)[:headerSize+n], false)
}

// PutFile takes a file in that lies on the store's own file system, by moving
// it, if it is ref: ErrMismatch (MismatchError) otherwise. Unless it returns an
// error the file is gone from path. The content must be larger than what goes
// into packs; smaller content is copied.
func (s *Store) PutFile(ref manifest.BlobRef, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if ref.Size <= s.opts.SmallLimit || s.Has(ref.Digest) {
		if err := s.PutKnown(ref, f); err != nil {
			return err
		}
		return s.disk.remove(path)
	}
	h := manifest.NewHasher()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 256<<10))
	if err != nil {
		return err
	}
	if have := (manifest.BlobRef{Digest: h.Digest(), Size: n}); have != ref {
		return &MismatchError{Want: ref, Have: have}
	}
	return s.TakeFile(ref, path)
}

// TakeFile is PutFile of a file that the caller has written, and digested on the
// way: it is not read again.
func (s *Store) TakeFile(ref manifest.BlobRef, path string) error {
	if ref.Size <= s.opts.SmallLimit {
		return s.PutFile(ref, path)
	}
	taken, err := s.rename(path, ref)
	if err == nil && !taken {
		err = s.disk.remove(path)
	}
	return err
}

// buffer lends out room for one record and a byte more.
func (s *Store) buffer() *[]byte { return s.buffers.Get().(*[]byte) }

// putSmall appends content that stands behind room for a header.
func (s *Store) putSmall(buf []byte) (manifest.BlobRef, error) {
	content := buf[headerSize:]
	ref := manifest.BlobRef{Digest: manifest.DigestOf(content), Size: int64(len(content))}
	if err := s.append(ref.Digest, buf, false); err != nil {
		return manifest.BlobRef{}, err
	}
	return ref, nil
}

func (s *Store) putLarge(r io.Reader) (manifest.BlobRef, error) {
	path, ref, err := s.spool(r)
	if err != nil {
		return manifest.BlobRef{}, err
	}
	if err := s.adopt(path, ref); err != nil {
		return manifest.BlobRef{}, err
	}
	return ref, nil
}

func (s *Store) putKnownLarge(ref manifest.BlobRef, r io.Reader) error {
	if s.Has(ref.Digest) {
		h := manifest.NewHasher()
		n, err := io.Copy(h, r)
		if err != nil {
			return err
		}
		if have := (manifest.BlobRef{Digest: h.Digest(), Size: n}); have != ref {
			return &MismatchError{Want: ref, Have: have}
		}
		if s.Has(ref.Digest) {
			return nil
		}
		return &NotFoundError{ref.Digest} // found corrupt meanwhile: send it again
	}
	f, err := s.newSpool(ref.Size)
	if err != nil {
		return err
	}
	return s.putSpooled(ref, f, manifest.NewHasher(), 0, r)
}

// putSpooled appends what r holds to a file of known content, of which so many
// bytes stand there and in h, and takes it in. Where r is cut off what came so
// far is kept for PutRest.
func (s *Store) putSpooled(ref manifest.BlobRef, f *os.File, h manifest.Hasher, begun int64, r io.Reader) error {
	have, cut, err := s.copyInto(f, h, begun, r, true)
	err = errors.Join(err, f.Close())
	switch {
	case err != nil && cut && have.Size <= ref.Size:
		s.keepPartial(f.Name(), ref.Digest, have.Size)
		return err
	case err == nil && have != ref:
		err = &MismatchError{Want: ref, Have: have}
	}
	if err != nil {
		_ = s.disk.remove(f.Name())
		return err
	}
	s.dropPartial(ref.Digest)
	return s.adopt(f.Name(), ref)
}

// spool streams r, of which nobody has told the size, into a file of its own in
// tmp/, and says what it was. After an error there is no file.
func (s *Store) spool(r io.Reader) (path string, ref manifest.BlobRef, err error) {
	f, err := s.newSpool(0)
	if err != nil {
		return "", ref, err
	}
	ref, _, err = s.copyInto(f, manifest.NewHasher(), 0, r, false)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = s.disk.remove(f.Name())
	}
	return f.Name(), ref, err
}

// newSpool makes a file in tmp/ for so many bytes.
func (s *Store) newSpool(size int64) (*os.File, error) {
	if s.isClosed() {
		return nil, ErrClosed
	}
	if err := s.room.take(size); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "put-")
	if err != nil {
		return nil, s.room.explain(err, size)
	}
	return f, nil
}

// copyInto writes what r holds behind the first `begun` bytes of f, which h has
// digested, and says what f holds then. cut tells that an error is r's. Room is
// asked for unless that was done.
func (s *Store) copyInto(f *os.File, h manifest.Hasher, begun int64, r io.Reader, known bool) (ref manifest.BlobRef, cut bool, err error) {
	ref.Size = begun
	buf := make([]byte, 256<<10)
	for {
		n, rerr := fill(r, buf)
		if n > 0 {
			if !known {
				if err := s.room.take(int64(n)); err != nil {
					return ref, false, err
				}
			}
			_, _ = h.Write(buf[:n]) // never fails
			if _, err := s.disk.write(f, buf[:n], ref.Size); err != nil {
				return ref, false, s.room.explain(err, int64(n))
			}
			ref.Size += int64(n)
		}
		if errors.Is(rerr, io.EOF) {
			ref.Digest = h.Digest()
			return ref, false, nil
		}
		if rerr != nil {
			return ref, true, rerr
		}
	}
}

// fill reads until b is full (nil) or r ends (io.EOF). Unlike io.ReadFull it
// does not mix up the end of r with a source that itself was cut short.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	if n == len(b) {
		return n, nil // an error of r comes again
	}
	return n, err
}

// adopt takes a spooled file into the store, or removes it where the blob is
// here already.
func (s *Store) adopt(path string, ref manifest.BlobRef) error {
	taken, err := s.rename(path, ref)
	if !taken {
		_ = s.disk.remove(path) // else the next Open does
	}
	return err
}

// rename makes a spooled file a pending blob, unless the blob is here already.
func (s *Store) rename(path string, ref manifest.BlobRef) (taken bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, ErrClosed
	}
	if _, ok := s.index[ref.Digest]; ok {
		s.touch(ref.Digest)
		return false, nil
	}
	if err := s.disk.rename(path, s.pendingPath(ref.Digest)); err != nil {
		return false, err
	}
	s.spooled++
	s.set(ref.Digest, place{size: ref.Size, offset: s.spooled, pack: pending})
	s.pending[ref.Digest] = struct{}{}
	s.used += ref.Size
	s.touch(ref.Digest)
	return true, nil
}
