package backup

import (
	"errors"
	"fmt"
	"io"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/records"
)

// maxRecord bounds one record, in bytes: the trailer may list a lot.
const maxRecord = 64 << 20

// ErrDamaged: a file is no backup, or not a whole one any more.
var ErrDamaged = errors.New("this is no backup of gatesync, or a damaged one: take another")

// Read reads a backup to its end. Each blob is given to put, which has to read
// all of it; nil: it is only checked. Only where no error is returned is any of
// it to be believed.
func Read(in io.Reader, put func(manifest.BlobRef, io.Reader) error) (raftstore.Replayed, Summary, error) {
	r := &reader{in: records.NewReader(in, 1<<18, maxRecord), have: map[manifest.Digest]bool{}}
	state, sum, err := r.read(put)
	var failed *putError
	switch {
	case errors.As(err, &failed):
		return state, sum, failed.error // not the backup's fault
	case err != nil:
		return state, sum, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return state, sum, nil
}

type reader struct {
	in   *records.Reader
	next *pb.BackupRecord // read, and not yet taken
	have map[manifest.Digest]bool
}

// putError is an error of put.
type putError struct{ error }

func (r *reader) read(put func(manifest.BlobRef, io.Reader) error) (state raftstore.Replayed, sum Summary, err error) {
	first, err := r.take()
	if err != nil {
		return state, sum, err
	}
	h := first.GetHeader()
	if h.GetFormat() != Format {
		return state, sum, fmt.Errorf("format %d is not known here (this version knows %d): use the version of gatesync that wrote it, or a newer one", h.GetFormat(), Format)
	}
	snapshot := &snapshotReader{of: r}
	if state, err = raftstore.Restored(snapshot); err != nil {
		return state, sum, err
	}
	if _, err := io.Copy(io.Discard, snapshot); err != nil {
		return state, sum, err
	}
	for {
		rec, err := r.take()
		if err != nil {
			return state, sum, err
		}
		switch of := rec.GetOf().(type) {
		case *pb.BackupRecord_Blob:
			if err := r.blob(of.Blob, put); err != nil {
				return state, sum, err
			}
		case *pb.BackupRecord_Trailer:
			if err := r.complete(state.Machine, h, of.Trailer); err != nil {
				return state, sum, err
			}
			return state, summary(h, of.Trailer), nil
		default:
			return state, sum, errors.New("records in disorder")
		}
	}
}

// blob hands one blob over.
func (r *reader) blob(info *pb.BlobInfo, put func(manifest.BlobRef, io.Reader) error) error {
	d, err := manifest.DigestFromBytes(info.GetDigest())
	if err != nil || info.GetSize() < 0 || r.have[d] {
		return errors.New("a malformed or repeated blob")
	}
	content := &blobReader{of: r, left: info.GetSize(), hash: manifest.NewHasher()}
	if put != nil {
		err = put(manifest.BlobRef{Digest: d, Size: info.GetSize()}, content)
	} else {
		_, err = io.Copy(io.Discard, content)
	}
	switch {
	case content.err != nil:
		return content.err
	case err != nil:
		return &putError{err}
	case content.left > 0:
		return &putError{fmt.Errorf("%d bytes of a blob were not read", content.left)}
	case content.hash.Digest() != d:
		return fmt.Errorf("the content of blob %s does not match its digest", d.Short())
	}
	r.have[d] = true
	return nil
}

// complete checks what only the whole can tell.
func (r *reader) complete(m *raftstore.Machine, h *pb.BackupHeader, t *pb.BackupTrailer) error {
	if err := r.in.Check(t.GetRecords(), t.GetDigest()); err != nil {
		return err
	}
	id, _, _ := m.Cluster()
	switch {
	case id != h.GetClusterId() || uint64(m.Revision()) != h.GetRevision() || m.Incarnation() != incarnationOf(h):
		return errors.New("header and content are of different states")
	case !r.in.AtEnd():
		return errors.New("there is something behind its end")
	}
	for _, info := range m.Trees() {
		view, _ := m.View(info.Name)
		var lacks manifest.Path
		view.Manifest.All(func(p manifest.Path, n manifest.Node) bool {
			if n.Entry.HasContent() && !r.have[n.Entry.Digest] {
				lacks = p
			}
			return lacks == ""
		})
		if lacks != "" {
			return fmt.Errorf("the content of %s of tree %s is not in it", lacks, info.Name)
		}
	}
	return nil
}

func incarnationOf(h *pb.BackupHeader) cluster.Incarnation {
	return max(cluster.Incarnation(h.GetIncarnation()), cluster.FirstIncarnation)
}

// take returns the next record.
func (r *reader) take() (*pb.BackupRecord, error) {
	if rec := r.next; rec != nil {
		r.next = nil
		return rec, nil
	}
	rec := new(pb.BackupRecord)
	if err := r.in.Next(rec); err != nil {
		return nil, err
	}
	return rec, nil
}

// snapshotReader is the machine's snapshot; it ends at the first record that is
// none of it.
type snapshotReader struct {
	of   *reader
	rest []byte
}

func (s *snapshotReader) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		rec, err := s.of.take()
		if err != nil {
			return 0, err
		}
		of, ok := rec.GetOf().(*pb.BackupRecord_Snapshot)
		if !ok {
			s.of.next = rec
			return 0, io.EOF
		}
		s.rest = of.Snapshot
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// blobReader is one blob's content.
type blobReader struct {
	of   *reader
	rest []byte
	left int64
	hash manifest.Hasher
	err  error // of the backup
}

func (b *blobReader) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.left == 0 {
			return 0, io.EOF
		}
		rec, err := b.of.take()
		if err == nil && (rec.GetData() == nil || int64(len(rec.GetData())) > b.left) {
			err = errors.New("a blob ends early, or late")
		}
		if err != nil {
			b.err = err
			return 0, err
		}
		b.rest = rec.GetData()
	}
	n := copy(p, b.rest)
	_, _ = b.hash.Write(p[:n])
	b.rest, b.left = b.rest[n:], b.left-int64(n)
	return n, nil
}
