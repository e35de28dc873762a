package blob

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/gatesync/gatesync/manifest"
)

// Collected is what a Collect did.
type Collected struct {
	Blobs int   // that are no longer here
	Bytes int64 // of their content
	Packs int   // that were removed, what lived in them rewritten
	Freed int64 // of disk
}

// Collect removes what live does not vouch for: loose blobs at once, small
// ones where they are more than half of their pack, which is then rewritten;
// the others go on being answered for.
//
// It may run beside everything else. A blob that was put, opened or asked for
// (Has) since Collect began survives, so nobody who found a blob here loses it
// under his hands. What was found before it began has to be vouched for: live
// is called after the beginning, with no lock held, once for each blob, and
// from this goroutine.
//
// After an error what was collected so far stays so; nothing live is lost.
func (s *Store) Collect(ctx context.Context, live func(manifest.Digest) bool) (c Collected, err error) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	all, err := s.beginCollect()
	if err != nil {
		return c, err
	}
	defer s.endCollect()
	s.trimPartials(partialMost)

	dead := map[manifest.Digest]place{}
	for d, at := range all {
		if err := ctx.Err(); err != nil {
			return c, err
		}
		if !live(d) {
			dead[d] = at
		}
	}
	for d, at := range dead {
		if err := ctx.Err(); err != nil {
			return c, err
		}
		if at.pack == loose {
			if err := s.collectLoose(d, at, &c); err != nil {
				return c, err
			}
		}
	}
	return c, s.collectPacks(ctx, dead, &c)
}

// Discard removes what keep does not vouch for of the large blobs that were not
// flushed yet: whoever has no more use for them need not wait for their flush.
func (s *Store) Discard(keep func(manifest.Digest) bool) error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	var paths []string
	s.mu.Lock()
	for d := range s.pending {
		if !keep(d) {
			paths = append(paths, s.pendingPath(d))
			s.used -= s.index[d].size
			s.unset(d)
			delete(s.pending, d)
			delete(s.suspects, d)
		}
	}
	s.mu.Unlock()
	var err error
	for _, p := range paths {
		err = errors.Join(err, s.disk.remove(p))
	}
	return err
}

// beginCollect lists what may be collected, and notes from now on what is
// touched. What is pending was just put, and is left for another time.
func (s *Store) beginCollect() (map[manifest.Digest]place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.touched = map[manifest.Digest]struct{}{}
	all := maps.Clone(s.index)
	maps.DeleteFunc(all, func(_ manifest.Digest, at place) bool { return at.pack == pending })
	return all, nil
}

func (s *Store) endCollect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched = nil
}

// doomed tells whether a dead blob is to go: it lies where it was seen, and
// nobody has touched it since. mu is held.
func (s *Store) doomed(d manifest.Digest, at place) bool {
	_, touched := s.touched[d]
	return !touched && s.index[d] == at
}

func (s *Store) collectLoose(d manifest.Digest, at place, c *Collected) error {
	// A large file takes a while to remove; out of the way it goes at once.
	trash := filepath.Join(s.dir, "tmp", "dead-"+d.String())
	taken, err := func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			return false, ErrClosed
		}
		if !s.doomed(d, at) {
			return false, nil
		}
		if err := s.disk.rename(s.loosePath(d), trash); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		s.unset(d)
		s.used -= at.size
		return true, nil
	}()
	if !taken {
		return err
	}
	c.Blobs++
	c.Bytes += at.size
	c.Freed += at.size
	if err := s.disk.remove(trash); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// collectPacks rewrites the packs that are less than half live.
func (s *Store) collectPacks(ctx context.Context, dead map[manifest.Digest]place, c *Collected) error {
	inPack := map[uint32][]manifest.Digest{}
	for d, at := range dead {
		inPack[at.pack] = append(inPack[at.pack], d)
	}
	for _, p := range s.sparse(dead) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.rewrite(p, inPack[p.number], dead, c); err != nil {
			return err
		}
	}
	return nil
}

// sparse lists the packs that are less than half live, oldest first. If the
// current one is, it is ended: what is put from now on goes to another.
func (s *Store) sparse(dead map[manifest.Digest]place) []*pack {
	s.appending.Lock()
	defer s.appending.Unlock()
	living := s.living(dead)
	isSparse := func(p *pack) bool { return 2*living[p.number] < p.end }
	if p := s.current; p != nil && isSparse(p) {
		s.endPack()
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []*pack
	for _, p := range s.packs {
		if p != s.current && !slices.Contains(s.failed, p) && isSparse(p) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *pack) int { return int(a.number) - int(b.number) })
	return list
}

// living says how many bytes of each pack are to stay.
func (s *Store) living(dead map[manifest.Digest]place) map[uint32]int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := map[uint32]int64{}
	for d, at := range s.index {
		if seen, ok := dead[d]; !ok || !s.doomed(d, seen) {
			n[at.pack] += headerSize + at.size
		}
	}
	return n
}

// rewrite forgets what is dead in a pack, moves the rest to the current pack,
// and removes it once that is flushed.
func (s *Store) rewrite(p *pack, digests []manifest.Digest, dead map[manifest.Digest]place, c *Collected) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	for _, d := range digests {
		if at := dead[d]; s.doomed(d, at) {
			s.unset(d)
			c.Blobs++
			c.Bytes += at.size
		}
	}
	s.mu.Unlock()
	if err := s.empty(p); err != nil {
		return err
	}
	c.Packs++
	c.Freed += p.end
	return s.drop(p, s.disk.remove)
}

// empty moves what the index says lies in a pack to the current one, durably.
func (s *Store) empty(p *pack) error {
	// What was put after a collection's beginning may lie here too; go by the index.
	for _, r := range s.recordsOf(p) {
		err := s.move(p, r)
		if errors.Is(err, ErrCorrupt) {
			s.log.Error("blob store: " + err.Error())
			continue
		}
		if err != nil {
			return err
		}
	}
	return s.Flush()
}

// drop takes an emptied pack out of the store; end deals with its file.
func (s *Store) drop(p *pack, end func(path string) error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	delete(s.packs, p.number)
	s.used -= p.end
	s.mu.Unlock()
	defer p.release()
	return end(p.file.Name())
}
