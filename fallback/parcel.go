package fallback

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// A parcel is one file on the share with the blobs of one batch, one behind
// the other: a file for each of a thousand small blobs would cost a second and
// more on NFS. Its name says exactly what must be in it: the digest of the
// list, and for a single blob the blob's own.

const (
	parcelChunk = 1 << 20 // of one read or write
	parcelFlush = 8 << 20 // is flushed at once, so that a flush is never long
	partSuffix  = ".part" // of what is being written
)

// parcel is one that this node has laid down.
type parcel struct {
	size  int64
	users int       // transfers that offer it
	short bool      // some peer has not taken it
	until time.Time // then it goes; zero while it is in use
	laid  bool      // it is whole
	in    *os.Root  // the directory that it was laid in
}

var (
	errSlow   = errors.New("the share is slow")
	errFull   = errors.New("too little room is left on the share; free some, and it is used again")
	errTooBig = errors.New("more than one node's part of the share")
	errLost   = errors.New("the share cannot be used")
)

// WrongBytesError: what lies on the share is not what it should be.
type WrongBytesError struct{ File string }

func (e *WrongBytesError) Error() string {
	return fmt.Sprintf("%s on the share does not hold what its name says", e.File)
}

// parcelName names a parcel of these blobs.
func parcelName(refs []manifest.BlobRef) string {
	if len(refs) == 1 {
		return refs[0].Digest.String()
	}
	h := manifest.NewHasher()
	for _, r := range refs {
		_, _ = h.Write(r.Digest[:]) // never fails
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(r.Size)))
	}
	return h.Digest().String()
}

func sizeOf(refs []manifest.BlobRef) (size int64) {
	for _, r := range refs {
		size += r.Size
	}
	return size
}

// lay puts a parcel down, unless it lies there, and counts one who uses it:
// release has to follow.
func (s *Share) lay(ctx context.Context, refs []manifest.BlobRef, open func(manifest.Digest) (Reader, error)) (name string, err error) {
	name = parcelName(refs)
	size := sizeOf(refs)
	dir, err := s.reserve(name, size)
	if dir == nil || err != nil {
		return name, err
	}
	began := time.Now()
	err = s.write(ctx, dir, name, refs, open)
	s.mu.Lock()
	p := s.mine[name]
	if err != nil {
		delete(s.mine, name)
		s.held -= p.size
	} else {
		p.laid = true
		s.fails = 0
	}
	s.mu.Unlock()
	var own *ownError
	switch {
	case err == nil:
		s.laid.add(int64(len(refs)), size, size)
		s.log.Debug("laid a parcel on the share", "blobs", len(refs), "bytes", size, "took", time.Since(began).String())
	case errors.As(err, &own), ctx.Err() != nil: // no fault of the share's
	default:
		s.trouble(err)
	}
	return name, err
}

// reserve counts a user of a parcel in. It returns the directory where the
// parcel has to be written by the caller, nil where it lies there.
func (s *Share) reserve(name string, size int64) (*os.Root, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != "" || s.dir == nil {
		return nil, errLost
	}
	if p := s.mine[name]; p != nil && p.in == s.dir && p.laid {
		p.users++
		p.until = time.Time{}
		return nil, nil
	} else if p != nil {
		return nil, errLost // being written by another transfer, or in another directory: not worth waiting for
	}
	switch {
	case s.held+size > s.limits.most:
		return nil, errTooBig
	case s.free-size < s.limits.reserve:
		return nil, errFull
	}
	s.mine[name] = &parcel{size: size, users: 1, in: s.dir}
	s.held += size
	return s.dir, nil
}

// ownError is a failure of this node's own store.
type ownError struct{ error }

func (e *ownError) Unwrap() error { return e.error }

// write writes the file beside, flushes it and renames it into place.
func (s *Share) write(ctx context.Context, dir *os.Root, name string, refs []manifest.BlobRef, open func(manifest.Digest) (Reader, error)) (err error) {
	part := blobsDir + "/" + name + "." + newNonce() + partSuffix
	f, err := vfs.Pass(s.gate, "create", func() (*os.File, error) {
		return dir.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}, func(f *os.File) { _ = f.Close() })
	if err != nil {
		return err
	}
	w := &chunked{share: s, ctx: ctx, f: f, began: time.Now()}
	defer func() {
		if err != nil {
			_ = s.gate.Close("remove", func() error { return errors.Join(f.Close(), dir.Remove(part)) })
		}
	}()
	for _, ref := range refs {
		if err := copyOwn(w, ref, open); err != nil {
			return err
		}
	}
	if err := w.flush(true); err != nil {
		return err
	}
	return s.gate.Do("rename", func() error {
		if err := f.Close(); err != nil {
			return err
		}
		return dir.Rename(part, blobsDir+"/"+name)
	})
}

// copyOwn appends a blob of the own store.
func copyOwn(w io.Writer, ref manifest.BlobRef, open func(manifest.Digest) (Reader, error)) error {
	r, err := open(ref.Digest)
	if err != nil {
		return &ownError{err}
	}
	defer r.Close()
	own := &ownReader{r: r}
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, own, make([]byte, 64<<10))
	if err == nil && n != ref.Size {
		own.err = fmt.Errorf("the stored blob %s has %d bytes, not %d", ref.Digest.Short(), n, ref.Size)
	}
	if own.err != nil {
		return &ownError{own.err}
	}
	return err
}

// ownReader remembers that it was the reading that failed.
type ownReader struct {
	r   io.Reader
	err error
}

func (o *ownReader) Read(b []byte) (int, error) {
	n, err := o.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		o.err = err
	}
	return n, err
}

// chunked writes to the share in large pieces, each through the gate. A piece
// belongs to the call that writes it: after a failure it is not touched again.
type chunked struct {
	share *Share
	ctx   context.Context
	f     *os.File
	began time.Time
	buf   []byte
	sent  int64
	dirty int64
}

func (w *chunked) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if w.buf == nil {
			w.buf = make([]byte, 0, parcelChunk)
		}
		k := min(len(b), cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, b[:k]...)
		b = b[k:]
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(false); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// flush writes what is there; last, or when enough is dirty, it also waits
// until the server has it.
func (w *chunked) flush(last bool) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	b, f := w.buf, w.f
	w.dirty += int64(len(b))
	sync := last || w.dirty >= parcelFlush
	err := w.share.gate.Long("write", func() error {
		if _, err := f.Write(b); err != nil || !sync {
			return err
		}
		return f.Sync()
	})
	if err != nil {
		w.buf = nil
		return err
	}
	w.buf = w.buf[:0]
	w.sent += int64(len(b))
	if sync {
		w.dirty = 0
	}
	return w.share.paced(w.began, w.sent)
}

// paced tells whether a transfer is too slow to be worth it.
func (s *Share) paced(began time.Time, bytes int64) error {
	took := time.Since(began)
	if took > s.limits.grace && float64(bytes)/took.Seconds() < float64(s.limits.pace) {
		return fmt.Errorf("%w: %d bytes in %s", errSlow, bytes, took.Round(time.Millisecond))
	}
	return nil
}

// release counts a user of a parcel out; taken tells whether all that it was
// offered to have it. What nobody uses goes at once if so, else after a time:
// a retry may offer it again.
func (s *Share) release(name string, taken bool) {
	s.mu.Lock()
	p := s.mine[name]
	if p == nil {
		s.mu.Unlock()
		return
	}
	p.users--
	p.short = p.short || !taken
	if p.users == 0 {
		p.until = time.Now()
		if p.short {
			p.until = p.until.Add(s.limits.keep)
		}
	}
	s.mu.Unlock()
	s.expire()
}

// take reads blobs of a parcel that a peer has laid down into the own store.
// needs picks them; put stores one, verified. What could not be had is left
// out, and why says for what reason, nil where nothing is wrong with the
// share. beat is called whenever something has come.
func (s *Share) take(ctx context.Context, name string, refs []manifest.BlobRef, needs func(manifest.Digest) bool, put func(manifest.BlobRef, io.Reader) error, beat func()) error {
	if _, err := manifest.ParseDigest(name); err != nil {
		return &ProtocolError{What: "a parcel with an impossible name"}
	}
	if name != parcelName(refs) {
		return &ProtocolError{What: "a parcel that is not of these blobs"}
	}
	_, dir := s.opened()
	if dir == nil {
		return fmt.Errorf("%w: %s", errLost, s.Status().Why)
	}
	file := blobsDir + "/" + name
	f, err := vfs.Pass(s.gate, "open a parcel", func() (*os.File, error) {
		f, err := openRegular(dir, file)
		if err != nil {
			return nil, err
		}
		fi, err := f.Stat()
		if err == nil && fi.Size() != sizeOf(refs) {
			err = &WrongBytesError{File: file}
		}
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		return f, nil
	}, func(f *os.File) { _ = f.Close() })
	if err != nil {
		return s.untaken(dir, file, err)
	}
	defer func() { _ = s.gate.Close("close", f.Close) }()
	r := &parcelReader{share: s, ctx: ctx, f: f, began: time.Now(), beat: beat}
	for _, ref := range refs {
		if needs(ref.Digest) {
			r.left = ref.Size
			err := put(ref, r)
			switch {
			case r.err != nil:
				return s.untaken(dir, file, r.err)
			case errors.Is(err, blob.ErrMismatch):
				return s.untaken(dir, file, &WrongBytesError{File: file})
			case err != nil:
				return &ownError{err}
			}
			s.taken.add(1, ref.Size, ref.Size)
		}
		r.seek(ref.Size)
	}
	s.mu.Lock()
	s.fails = 0
	s.mu.Unlock()
	return nil
}

// untaken deals with a parcel that could not be read: one with wrong bytes is
// removed and named, once.
func (s *Share) untaken(dir *os.Root, file string, err error) error {
	var wrong *WrongBytesError
	switch {
	case errors.As(err, &wrong):
		s.mu.Lock()
		fresh := !s.wrong[file]
		if len(s.wrong) < 1024 {
			s.wrong[file] = true
		}
		s.mu.Unlock()
		if fresh {
			s.log.Warn("a file on the share has wrong bytes: it is removed, and its content pushed instead", "path", s.path+"/"+s.cluster+"/"+file)
		}
		_ = s.gate.Do("remove", func() error { return dir.Remove(file) })
	case errors.Is(err, vfs.ErrHung), errors.Is(err, unix.ESTALE) && !s.stands(), errors.Is(err, unix.EIO):
		s.trouble(err)
	}
	return err
}

// stands tells whether the directory itself still answers.
func (s *Share) stands() bool {
	top, _ := s.opened()
	return top != nil && s.gate.Do("look", func() error { _, err := look(top, s.path); return err }) == nil
}

// parcelReader reads one blob after another off a parcel, in large pieces
// ahead, each through the gate.
type parcelReader struct {
	share *Share
	ctx   context.Context
	f     *os.File
	began time.Time
	beat  func()

	start int64 // of the current blob in the file
	off   int64 // read so far of it
	left  int64
	buf   []byte // read ahead …
	at    int64  // … from this place in the file on
	read  int64
	err   error // of the share, not of the store
}

// seek goes on to the next blob.
func (r *parcelReader) seek(size int64) {
	r.start += size
	r.off, r.left = 0, 0
}

// Read implements io.Reader for the store: it ends with the blob.
func (r *parcelReader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	pos := r.start + r.off
	if pos < r.at || pos >= r.at+int64(len(r.buf)) {
		if r.err = r.fill(pos); r.err != nil {
			return 0, r.err
		}
	}
	n := copy(b[:min(int64(len(b)), r.left)], r.buf[pos-r.at:])
	r.off += int64(n)
	r.left -= int64(n)
	return n, nil
}

func (r *parcelReader) fill(pos int64) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	f, buf := r.f, r.buf[:cap(r.buf)]
	if len(buf) == 0 {
		buf = make([]byte, parcelChunk)
	}
	r.buf = nil // it belongs to the call until that is back
	n, err := vfs.Pass(r.share.gate, "read", func() (int, error) {
		n, err := f.ReadAt(buf, pos)
		if n > 0 && errors.Is(err, io.EOF) {
			err = nil
		}
		return n, err
	}, nil)
	if errors.Is(err, io.EOF) {
		err = &WrongBytesError{File: f.Name()} // cut short
	}
	if err != nil {
		return err
	}
	r.buf, r.at = buf[:n], pos
	r.read += int64(n)
	r.beat()
	return r.share.paced(r.began, r.read)
}
