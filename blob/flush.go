package blob

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/gatesync/gatesync/manifest"
)

// syncfsFrom is how many loose files make one syncfs cheaper than a flush of each.
const syncfsFrom = 8

// round is one flush, which many may wait for.
type round struct {
	done chan struct{}
	err  error // once done is closed
}

// Flush makes durable what was put before the call. Concurrent callers share
// one flush: those that come while one runs wait for it and share the next.
// After an error nothing new is known to be durable; nothing is lost either,
// and the next Flush tries again (ErrLost: it cannot, see there).
func (s *Store) Flush() error {
	s.joining.Lock()
	if r := s.next; r != nil {
		s.joining.Unlock()
		<-r.done
		return r.err
	}
	r := &round{done: make(chan struct{})}
	s.next = r
	s.joining.Unlock()

	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.joining.Lock()
	s.next = nil // whoever comes now may have put too late for this one
	s.joining.Unlock()
	defer close(r.done)
	r.err = s.flush()
	return r.err
}

// flush is one round. flushing is held.
func (s *Store) flush() error {
	if s.isClosed() {
		return ErrClosed
	}
	return errors.Join(s.flushPacks(), s.flushLoose())
}

func (s *Store) flushPacks() error {
	if err := s.rescue(); err != nil {
		return err
	}
	s.appending.Lock()
	p, end := s.current, int64(0)
	if p != nil {
		end = p.end
	}
	s.appending.Unlock()
	var err error
	if p != nil {
		err = s.syncPack(p, end)
	}
	s.appending.Lock()
	defer s.appending.Unlock()
	if err != nil && s.current == p {
		s.current = nil
		s.failed = append(s.failed, p)
	}
	if err == nil && len(s.failed) > 0 {
		err = s.failed[0].failed // it was ended by a Put, meanwhile
	}
	return s.room.explain(err, 0)
}

// rescue appends anew what lies unflushed in packs whose flush failed: after a
// failure the kernel calls the pages clean, and a second fdatasync would
// succeed without having written them.
func (s *Store) rescue() error {
	s.appending.Lock()
	failed, err := slices.Clone(s.failed), s.lost
	s.appending.Unlock()
	if err != nil {
		return err
	}
	for _, p := range failed {
		if err := s.moveFrom(p, p.flushed); err != nil {
			if errors.Is(err, ErrCorrupt) {
				return s.fail(err)
			}
			return err
		}
		s.appending.Lock()
		s.failed = slices.DeleteFunc(s.failed, func(q *pack) bool { return q == p })
		s.appending.Unlock()
	}
	return nil
}

// fail ends the store: somebody may have been told that a blob is here which
// is not, and will count on the next flush.
func (s *Store) fail(err error) error {
	s.appending.Lock()
	defer s.appending.Unlock()
	if s.lost == nil {
		s.lost = fmt.Errorf("%w: %w", ErrLost, err)
	}
	return s.lost
}

// moveFrom appends anew every blob that lies in p at or behind the offset.
func (s *Store) moveFrom(p *pack, offset int64) error {
	for _, r := range s.recordsOf(p) {
		if r.offset < offset {
			continue
		}
		if err := s.move(p, r); err != nil {
			return err
		}
	}
	return nil
}

// move appends a record of p to the current pack. ErrCorrupt where it does not
// verify; then it is no longer answered for.
func (s *Store) move(p *pack, r record) error {
	buf := make([]byte, headerSize+r.size)
	if _, err := p.file.ReadAt(buf[headerSize:], r.offset); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if manifest.DigestOf(buf[headerSize:]) != r.digest {
		s.forgetCorrupt(r.digest, place{size: r.size, offset: uint32(r.offset), pack: p.number})
		return &CorruptError{Digest: r.digest, File: p.file.Name()}
	}
	return s.append(r.digest, buf, true)
}

// recordsOf lists what the index says lies in a pack, in order.
func (s *Store) recordsOf(p *pack) []record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []record
	for d, at := range s.index {
		if at.pack == p.number {
			list = append(list, record{digest: d, offset: int64(at.offset), size: at.size})
		}
	}
	slices.SortFunc(list, func(a, b record) int { return int(a.offset - b.offset) })
	return list
}

// flushLoose flushes pending files and moves them to loose/, so that what is
// there after a power cut is whole. flushing is held.
func (s *Store) flushLoose() error {
	files := map[manifest.Digest]place{}
	s.mu.RLock()
	for d := range s.pending {
		files[d] = s.index[d]
	}
	s.mu.RUnlock()
	errs := s.syncFiles(slices.Collect(maps.Keys(files)))
	for d, at := range files {
		if errs[d] != nil {
			continue
		}
		if err := s.settle(d, at); err != nil {
			errs[d] = err
		}
	}
	if s.looseDirty {
		if err := s.disk.syncDir(filepath.Join(s.dir, "loose")); err != nil {
			return err
		}
		s.looseDirty = false
	}
	return s.room.explain(errors.Join(slices.Collect(maps.Values(errs))...), 0)
}

// syncFiles flushes pending files, and tells of those that it could not.
func (s *Store) syncFiles(all []manifest.Digest) map[manifest.Digest]error {
	errs := map[manifest.Digest]error{}
	for _, d := range all {
		if _, ok := s.suspects[d]; ok {
			if err := s.respool(d); err != nil {
				errs[d] = err
				continue
			}
			delete(s.suspects, d)
		}
	}
	var err error
	if len(all) >= syncfsFrom {
		err = s.disk.syncfs(s.tmp)
	}
	for _, d := range all {
		if len(all) < syncfsFrom {
			err = s.syncFile(d)
		}
		if err != nil && errs[d] == nil {
			errs[d] = err
			s.suspects[d] = struct{}{}
		}
	}
	return errs
}

func (s *Store) syncFile(d manifest.Digest) error {
	f, err := os.Open(s.pendingPath(d))
	if err != nil {
		return err
	}
	return errors.Join(s.disk.sync(f), f.Close())
}

// respool copies a pending file whose flush failed, for the reason that rescue gives.
func (s *Store) respool(d manifest.Digest) error {
	f, err := os.Open(s.pendingPath(d))
	if err != nil {
		return err
	}
	defer f.Close()
	path, ref, err := s.spool(f)
	if err != nil {
		return err
	}
	if ref.Digest != d {
		_ = s.disk.remove(path)
		return s.fail(&CorruptError{Digest: d, File: f.Name()})
	}
	return s.disk.rename(path, s.pendingPath(d))
}

// settle moves a flushed file to where it stays.
func (s *Store) settle(d manifest.Digest, at place) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index[d] != at {
		return nil // found corrupt meanwhile
	}
	if err := s.disk.rename(s.pendingPath(d), s.loosePath(d)); err != nil {
		return err
	}
	s.looseDirty = true
	delete(s.pending, d)
	s.set(d, place{size: at.size, offset: at.offset, pack: loose})
	return nil
}
