package fallback

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/gatesync/gatesync/vfs"
)

// expire removes those of this node's parcels that nobody needs any more.
func (s *Share) expire() {
	type due struct {
		name string
		in   *os.Root
		size int64
	}
	var gone []due
	s.mu.Lock()
	if s.dir != nil {
		for name, p := range s.mine {
			if p.users == 0 && !p.until.IsZero() && !time.Now().Before(p.until) {
				gone = append(gone, due{name, s.dir, p.size})
				delete(s.mine, name)
			}
		}
	}
	s.mu.Unlock()
	for i, d := range gone {
		err := s.gate.Do("remove a parcel", func() error { return d.in.Remove(blobsDir + "/" + d.name) })
		s.mu.Lock()
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			s.held -= d.size
			s.mu.Unlock()
			continue
		}
		for _, d := range gone[i:] { // the next look tries again
			s.mine[d.name] = &parcel{size: d.size, in: d.in, until: time.Now(), laid: true}
		}
		s.mu.Unlock()
		return
	}
}

// upkeep collects what others have left behind: parcels of nodes that died,
// half-written ones, nonces of nodes that are gone. Ages go by the file
// server's clock, as the freshly written own nonce shows it.
func (s *Share) upkeep() error {
	s.mu.Lock()
	dir, nonce := s.dir, s.nonce
	keep := map[string]bool{}
	for name := range s.mine {
		keep[name] = true
	}
	s.mu.Unlock()
	if dir == nil {
		return nil
	}
	limits, self, told := s.limits, s.self, s.told()
	n, err := vfs.PassLong(s.gate, "collect leftovers", func() (int, error) {
		own := nodesDir + "/" + nonceFile(self, nonce)
		if err := writeSmall(dir, own, []byte(self), 0o600); err != nil {
			return 0, err
		}
		fi, err := dir.Stat(own)
		if err != nil {
			return 0, err
		}
		removed, err := collectOld(dir, blobsDir, fi.ModTime(), limits.orphan, func(name string) bool { return keep[name] })
		if err != nil {
			return removed, err
		}
		more, err := collectOld(dir, nodesDir, fi.ModTime(), max(24*limits.upkeep, limits.orphan), func(name string) bool {
			for id, n := range told {
				if name == nonceFile(id, n) {
					return true
				}
			}
			return name == nonceFile(self, nonce)
		})
		return removed + more, err
	}, nil)
	if n > 0 {
		s.log.Info("removed leftovers from the share", "path", s.path, "files", n)
	}
	return err
}

// collectOld removes what is older than age, but for what is kept.
func collectOld(dir *os.Root, name string, now time.Time, age time.Duration, keep func(string) bool) (removed int, err error) {
	entries, err := list(dir, name)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if keep(e.Name()) || strings.HasPrefix(e.Name(), ".nfs") {
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return removed, err
		}
		if now.Sub(fi.ModTime()) < age {
			continue
		}
		if err := dir.Remove(name + "/" + e.Name()); err == nil {
			removed++
		} else if !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
	}
	return removed, nil
}
