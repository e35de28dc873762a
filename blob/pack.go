package blob

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/gatesync/gatesync/manifest"
)

// pack is a file of records. Only the store's current pack grows.
type pack struct {
	number uint32
	file   *os.File
	end    int64        // of the last record; guarded by Store.appending while current
	refs   atomic.Int32 // the store's own and one for each Reader; the last one closes

	// One flush at a time: the kernel tells of a failure only once, and all
	// who depend on it must hear of it.
	syncing sync.Mutex
	flushed int64 // what ends here is durable
	failed  error // what lies behind flushed may never become so
}

func newPack(n uint32, f *os.File) *pack {
	p := &pack{number: n, file: f}
	p.refs.Store(1)
	return p
}

func (p *pack) release() {
	if p.refs.Add(-1) == 0 {
		_ = p.file.Close() // nothing unflushed depends on it
	}
}

func packName(n uint32) string { return fmt.Sprintf("%08d", n) }

func packNumber(name string) (uint32, bool) {
	n, err := strconv.ParseUint(name, 10, 32)
	return uint32(n), err == nil && n > 0 && uint32(n) < pending && packName(uint32(n)) == name
}

// append writes a record to the current pack: buf is room for the header with
// the content behind it. A blob that is here already is not stored again,
// unless it has to be moved.
func (s *Store) append(d manifest.Digest, buf []byte, move bool) error {
	size := int64(len(buf) - headerSize)
	putHeader(buf, d, size)
	s.appending.Lock()
	defer s.appending.Unlock()
	if s.lost != nil {
		return s.lost
	}
	if s.isClosed() {
		return ErrClosed
	}
	if _, ok := s.lookup(d); ok && !move {
		return nil
	}
	if !move { // what is here already may dip into the reserve: moving it makes room
		if err := s.room.take(int64(len(buf))); err != nil {
			return err
		}
	}
	p, err := s.packFor(int64(len(buf)))
	if err != nil {
		return s.room.explain(err, int64(len(buf)))
	}
	if _, err := s.disk.write(p.file, buf, p.end); err != nil {
		// Give back what was taken. Should this fail, the next record is
		// written over it.
		_ = p.file.Truncate(p.end)
		return s.room.explain(err, int64(len(buf)))
	}
	at := place{size: size, offset: uint32(p.end + headerSize), pack: p.number}
	p.end += int64(len(buf))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(d, at)
	s.used += int64(len(buf))
	s.touch(d)
	return nil
}

// packFor returns the current pack, a new one where n more bytes do not fit.
// appending is held.
func (s *Store) packFor(n int64) (*pack, error) {
	if p := s.current; p != nil {
		if p.end == 0 || p.end+n <= s.opts.PackLimit {
			return p, nil
		}
		s.endPack()
	}
	number := s.last + 1
	f, err := os.OpenFile(s.packPath(number), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := s.disk.syncDir(filepath.Join(s.dir, "packs")); err != nil {
		_ = f.Close()
		_ = s.disk.remove(f.Name())
		return nil, err
	}
	p := newPack(number, f)
	s.last, s.current = number, p
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packs[number] = p
	return p, nil
}

// endPack flushes the current pack and begins no new one. If the flush fails,
// the next Flush hears of it. appending is held.
func (s *Store) endPack() {
	p := s.current
	s.current = nil
	if s.syncPack(p, p.end) != nil {
		s.failed = append(s.failed, p)
		return
	}
	if err := s.seal(p); err != nil {
		s.log.Warn("blob store: a pack could not be sealed; it is read through at the next start", "error", err)
	}
}

// seal marks a pack that is flushed as a whole.
func (s *Store) seal(p *pack) error {
	_, err := p.file.WriteAt(sealOf(p.end), p.end)
	return err
}

// syncPack makes a pack durable up to there.
func (s *Store) syncPack(p *pack, upto int64) error {
	p.syncing.Lock()
	defer p.syncing.Unlock()
	if p.failed != nil || p.flushed >= upto {
		return p.failed
	}
	if err := s.disk.sync(p.file); err != nil {
		p.failed = err
		return err
	}
	p.flushed = upto
	return nil
}

func (s *Store) isClosed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.closed
}
