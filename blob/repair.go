package blob

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/gatesync/gatesync/manifest"
)

// keepDamaged is how many damaged files are kept for whoever wants to look.
const keepDamaged = 8

// Hurt holds a token after damage was found, by Open too: time for a Repair,
// and to fetch anew what is missing.
func (s *Store) Hurt() <-chan struct{} { return s.hurt }

// Corrupt counts the blobs that were found corrupt since Open.
func (s *Store) Corrupt() uint64 { return s.corrupt.Load() }

// noteDamage remembers a pack that holds damage. mu is held, or nobody else
// has the store yet.
func (s *Store) noteDamage(pack uint32) {
	if pack != loose && pack != pending {
		s.hurtPacks[pack] = struct{}{}
	}
	select {
	case s.hurt <- struct{}{}:
	default:
	}
}

// Repair moves what is whole out of packs in which damage was found, so that it
// is not found again at each start. The damaged packs end in damaged/, where
// nothing reads them; the newest few are kept. It runs beside everything else.
func (s *Store) Repair() error {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	for _, p := range s.takeHurt() {
		if err := s.empty(p); err != nil {
			s.mu.Lock()
			s.noteDamage(p.number) // for the next one
			s.mu.Unlock()
			return err
		}
		if err := s.drop(p, func(path string) error { return s.putAside(path) }); err != nil {
			return err
		}
	}
	return nil
}

// takeHurt lists the packs to repair; the current one is ended.
func (s *Store) takeHurt() (list []*pack) {
	s.appending.Lock()
	defer s.appending.Unlock()
	s.mu.Lock()
	hurt := s.hurtPacks
	s.hurtPacks = map[uint32]struct{}{}
	for n := range hurt {
		if p, ok := s.packs[n]; ok {
			list = append(list, p)
		}
	}
	s.mu.Unlock()
	if p := s.current; p != nil && slices.Contains(list, p) {
		s.endPack()
	}
	return slices.DeleteFunc(list, func(p *pack) bool { return slices.Contains(s.failed, p) })
}

// putAside moves a damaged file to damaged/, or removes it where there are
// enough.
func (s *Store) putAside(path string) error {
	dir := filepath.Join(s.dir, "damaged")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) >= keepDamaged {
		return errors.Join(err, s.disk.remove(path))
	}
	return s.disk.rename(path, filepath.Join(dir, filepath.Base(path)))
}

// forgetCorrupt stops answering for a blob that was found corrupt at that place.
func (s *Store) forgetCorrupt(d manifest.Digest, at place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index[d] != at {
		return // it has been put again, or moved
	}
	s.corrupt.Add(1)
	s.unset(d)
	s.noteDamage(at.pack)
	if at.pack != loose && at.pack != pending {
		return
	}
	path := s.loosePath(d)
	if at.pack == pending {
		path = s.pendingPath(d)
	}
	s.used -= at.size
	delete(s.pending, d)
	if err := s.putAside(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("blob store: a corrupt blob cannot be moved away; it is found again at the next start", "error", err)
	}
}
