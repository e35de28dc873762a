package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/vfs"
)

// snapshots are Raft's snapshots on disk, each of which is whole or is set
// aside. Raft's own store has a checksum of the state, and none of the index,
// the term and the configuration that stand beside it: their digest is written
// in front of the state here. And a state that is no whole snapshot, wherever
// it came from, never becomes one.
type snapshots struct {
	raft.SnapshotStore
	dir   string // raft's directory
	log   *slog.Logger
	made  func(index uint64) error // told before a snapshot counts
	renew func()                   // asks for a new one, because one turned out to be damaged
}

// snapshotDir and damagedDir lie in Raft's directory.
const (
	snapshotDir = "snapshots" // as hashicorp/raft names it
	tmpSuffix   = ".tmp"      // of one that it has not finished
	damagedDir  = "damaged"
)

// metaDigest covers what Raft keeps beside the state.
func metaDigest(index, term, confIndex uint64, c raft.Configuration) manifest.Digest {
	var b []byte
	for _, n := range []uint64{index, term, confIndex} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return manifest.DigestOf(append(b, raft.EncodeConfiguration(c)...))
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, confIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(v, index, term, c, confIndex, t)
	if err != nil {
		return nil, err
	}
	digest := metaDigest(index, term, confIndex, c)
	if _, err := sink.Write(digest[:]); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	r, w := io.Pipe()
	checked := &checkedSink{SnapshotSink: sink, index: index, made: s.made, pipe: w, result: make(chan error, 1)}
	go func() { // ends with Close or Cancel
		err := checkStream(r, index)
		_ = r.CloseWithError(err) // never fails
		checked.result <- err
	}()
	return checked, nil
}

// checkedSink reads along what is written to a snapshot.
type checkedSink struct {
	raft.SnapshotSink
	index  uint64
	made   func(uint64) error
	pipe   *io.PipeWriter
	result chan error
	ended  bool
}

// Write implements io.Writer.
func (s *checkedSink) Write(b []byte) (int, error) {
	if _, err := s.pipe.Write(b); err != nil {
		return 0, err
	}
	return s.SnapshotSink.Write(b)
}

// Close makes it a snapshot if it is a whole one.
func (s *checkedSink) Close() error {
	if s.ended {
		return nil
	}
	s.ended = true
	_ = s.pipe.Close() // never fails
	if err := <-s.result; err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrSnapshot, err), s.SnapshotSink.Cancel())
	}
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	return s.made(s.index)
}

// Cancel implements raft.SnapshotSink.
func (s *checkedSink) Cancel() error {
	if s.ended {
		return nil
	}
	s.ended = true
	_ = s.pipe.CloseWithError(errors.New("given up"))
	<-s.result
	return s.SnapshotSink.Cancel()
}

// checkStream reads what fsmSnapshot.Persist writes, up to its end, and tells
// whether it is whole, and of nothing behind the entry that it is said to end with.
func checkStream(in io.Reader, index uint64) error {
	var through [8]byte
	if _, err := io.ReadFull(in, through[:]); err != nil {
		return err
	}
	if n := binary.BigEndian.Uint64(through[:]); n > index {
		return fmt.Errorf("it is of entry %d, and ends with entry %d", n, index)
	}
	all := newSnapshotReader(in)
	for {
		rec, err := all.next()
		if err != nil {
			return err
		}
		t, ok := rec.GetOf().(*pb.SnapshotRecord_Trailer)
		if !ok {
			continue
		}
		if err := all.Check(t.Trailer.GetRecords(), t.Trailer.GetDigest()); err != nil {
			return err
		}
		if !all.AtEnd() {
			return errors.New("something follows its end")
		}
		return nil
	}
}

// List implements raft.SnapshotStore: the newest first.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.SnapshotStore.List()
	for i := range all {
		all[i] = outer(all[i])
	}
	return all, err
}

// outer is what the outside knows of a snapshot: the digest in front is ours.
func outer(m *raft.SnapshotMeta) *raft.SnapshotMeta {
	c := *m
	c.Size -= manifest.DigestSize
	return &c
}

// Open implements raft.SnapshotStore. A damaged snapshot is set aside. One that
// cannot be read now stays; where its disk refuses a part, another is made.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m, in, err := s.open(id)
	if errors.Is(err, ErrSnapshot) {
		s.setAside(id, err)
	}
	if errors.Is(err, ErrSnapshot) || errors.Is(err, unix.EIO) {
		s.renew()
	}
	return m, in, err
}

// open returns an ErrSnapshot for what was read and is not what was written.
// Other errors (too many open files, no permission, a disk that stumbles) say
// nothing of what is on the disk.
func (s *snapshots) open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m, in, err := s.SnapshotStore.Open(id)
	if unread(err) {
		return nil, nil, fmt.Errorf("a snapshot cannot be read: %w", err)
	}
	if err == nil && m.ID != id {
		err = errors.Join(errors.New("it stands under another name"), in.Close())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	var have manifest.Digest
	_, err = io.ReadFull(in, have[:])
	if err == nil && have != metaDigest(m.Index, m.Term, m.ConfigurationIndex, m.Configuration) {
		err = errors.New("its index, term or configuration is not what was written")
	}
	if unread(err) {
		return nil, nil, errors.Join(fmt.Errorf("a snapshot cannot be read: %w", err), in.Close())
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%w: %w", ErrSnapshot, err), in.Close())
	}
	return outer(m), in, nil
}

// unread tells whether the system did not let us read. A file that is missing
// from a snapshot is none of that: it is lost.
func unread(err error) bool {
	var no syscall.Errno
	return errors.As(err, &no) && no != unix.ENOENT
}

// openSurely is open at a start, where nobody else stands in for what the disk
// never gives back: it asks again before it takes that for damage.
func (s *snapshots) openSurely(id string) (m *raft.SnapshotMeta, in io.ReadCloser, err error) {
	const tries = 3
	for range tries {
		if m, in, err = s.open(id); !errors.Is(err, unix.EIO) {
			return m, in, err
		}
	}
	return nil, nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
}

// names lists the snapshots that are there, the newest first.
func (s *snapshots) names() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, snapshotDir))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasSuffix(e.Name(), tmpSuffix) { // else of a crash
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return slices.Compare(ageOf(b), ageOf(a)) })
	return names, nil
}

// ageOf is what Raft names a snapshot by: term, index, time.
func ageOf(name string) (age []uint64) {
	for part := range strings.SplitSeq(name, "-") {
		n, err := strconv.ParseUint(part, 10, 64)
		if err != nil {
			return nil
		}
		age = append(age, n)
	}
	return age
}

// setAside moves a damaged snapshot out of the way.
func (s *snapshots) setAside(id string, why error) {
	from, to := filepath.Join(s.dir, snapshotDir, id), filepath.Join(s.dir, damagedDir, id)
	err := os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil {
		err = os.Rename(from, to)
	}
	s.log.Error("a snapshot of the log is damaged; check the disk", "file", from, "why", why, "moved_to", to, "move_err", err)
}

// inspect reads every snapshot that is there and sets the damaged ones aside;
// what a crash left of one is removed. It returns the index of the newest one that is left, and which were damaged.
func (s *snapshots) inspect() (newest uint64, damaged []string, err error) {
	half, err := vfs.Like(filepath.Join(s.dir, snapshotDir), "*"+tmpSuffix)
	for _, dir := range half {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	names, nerr := s.names()
	if err = errors.Join(err, nerr); err != nil {
		return 0, nil, err
	}
	for _, name := range names {
		m, in, err := s.openSurely(name)
		if err == nil {
			err = in.Close()
		}
		if errors.Is(err, ErrSnapshot) {
			damaged = append(damaged, filepath.Join(s.dir, snapshotDir, name))
			s.setAside(name, err)
			continue
		}
		if err != nil {
			return 0, nil, fmt.Errorf("%w; nothing was changed: see to that, then start this node again", err)
		}
		newest = max(newest, m.Index)
	}
	return newest, damaged, nil
}

// oldest is the index of the oldest snapshot that is kept, 0 while there is
// only one: the log has to reach back so far, should a newer one be damaged.
func (s *snapshots) oldest() uint64 {
	all, err := s.SnapshotStore.List()
	if err != nil || len(all) < keepSnapshots {
		return 0
	}
	return all[len(all)-1].Index
}
