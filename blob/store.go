package blob

import (
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/gatesync/gatesync/manifest"
)

// Options of Open. The zero Options are good for use.
type Options struct {
	// Reserve is how many bytes of the disk stay free.
	Reserve int64
	// PackLimit ends a pack; 0: 64 MiB, at most 1 GiB.
	PackLimit int64
	// SmallLimit is the size of the largest blob that goes into a pack; 0:
	// 128 KiB, at most 1 MiB.
	SmallLimit int64
	// Log hears of damage; nil: nobody does.
	Log *slog.Logger
}

// Store keeps blobs in a directory. All methods are safe for concurrent use.
//
// Locks are taken in the order of the fields: collecting, flushing, appending,
// mu. Under mu nothing is written or flushed, at most a file is renamed, so
// that Has always answers.
type Store struct {
	dir     string
	id      string
	opts    Options
	log     *slog.Logger
	disk    disk
	room    room
	damage  []Damage
	buffers sync.Pool // *[]byte of headerSize+SmallLimit+1
	tmp     *os.File  // the tmp directory, held open so that syncfs reports what went wrong since

	collecting sync.Mutex // one Collect at a time

	joining    sync.Mutex                   // guards next
	next       *round                       // the flush that is waited for but has not begun
	flushing   sync.Mutex                   // one flush at a time
	looseDirty bool                         // guarded by flushing: loose/ has names that are not flushed
	suspects   map[manifest.Digest]struct{} // guarded by flushing: pending files whose flush failed

	appending sync.Mutex // orders appends to packs
	current   *pack      // guarded by appending; nil: the next append begins one
	last      uint32     // guarded by appending: the newest pack's number
	failed    []*pack    // guarded by appending: their flush failed, see rescue
	lost      error      // guarded by appending: ErrLost, for ever

	mu      sync.RWMutex
	closed  bool
	index   map[manifest.Digest]place
	packs   map[uint32]*pack
	pending map[manifest.Digest]struct{} // the loose blobs that lie in tmp/, not flushed
	spooled uint32                       // counts loose blobs
	touched map[manifest.Digest]struct{} // while a Collect runs: put or asked for since it began
	bytes   int64                        // of all blobs
	used    int64                        // on disk

	hurtPacks map[uint32]struct{} // guarded by mu: damage was found in them
	hurt      chan struct{}       // see Hurt
	corrupt   atomic.Uint64       // see Corrupt
}

// place is where a blob lies. It is kept small: there is one for every blob.
// Two copies of a blob never have the same place.
type place struct {
	size   int64
	offset uint32 // in the pack; of a loose blob a number of its own
	pack   uint32 // its number, or one of the below
}

const (
	loose   uint32 = 0              // a file of its own in loose/
	pending uint32 = math.MaxUint32 // a file of its own in tmp/, not flushed
)

// Stats is how much there is.
type Stats struct {
	Blobs int
	Bytes int64 // of content
	Disk  int64 // of files, with what Collect would free
}

// ID names the store: "s-" and 32 hex digits, made with the directory. A store
// whose content was wiped has another.
func (s *Store) ID() string { return s.id }

// Scratch is a directory beside the content that Open empties: for files of
// others that are of no use after a restart.
func (s *Store) Scratch() string { return filepath.Join(s.dir, "tmp") }

// Damage lists what Open found unreadable.
func (s *Store) Damage() []Damage { return append([]Damage(nil), s.damage...) }

// Has tells whether the blob is here, whole, perhaps not flushed. A blob that
// was asked for while a Collect runs survives it.
func (s *Store) Has(d manifest.Digest) bool {
	_, ok := s.lookup(d)
	return ok
}

// Size returns a blob's size; ok is false where it is not here.
func (s *Store) Size(d manifest.Digest) (size int64, ok bool) {
	at, ok := s.lookup(d)
	return at.size, ok
}

// Stats counts. It is cheap.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Stats{Blobs: len(s.index), Bytes: s.bytes, Disk: s.used}
}

// Close flushes and closes. Readers that are open stay usable; everything else
// is ErrClosed from then on.
func (s *Store) Close() error {
	err := s.Flush()
	if errors.Is(err, ErrClosed) {
		return nil
	}
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.appending.Lock()
	defer s.appending.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.current = nil
	for _, p := range s.packs {
		p.release()
	}
	return errors.Join(err, s.tmp.Close())
}

// lookup finds a blob, and sees it through a Collect that is running.
func (s *Store) lookup(d manifest.Digest) (place, bool) {
	s.mu.RLock()
	at, ok := s.index[d]
	collecting := s.touched != nil
	s.mu.RUnlock()
	if !ok || !collecting {
		return at, ok
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok = s.index[d]; ok {
		s.touch(d)
	}
	return at, ok
}

// touch notes that a blob was put or asked for. mu is held for writing.
func (s *Store) touch(d manifest.Digest) {
	if s.touched != nil {
		s.touched[d] = struct{}{}
	}
}

// set says where a blob lies. mu is held.
func (s *Store) set(d manifest.Digest, at place) {
	if was, ok := s.index[d]; ok {
		s.bytes -= was.size
	}
	s.bytes += at.size
	s.index[d] = at
}

// unset forgets a blob. mu is held.
func (s *Store) unset(d manifest.Digest) {
	if at, ok := s.index[d]; ok {
		s.bytes -= at.size
		delete(s.index, d)
	}
}

func (s *Store) packPath(n uint32) string { return filepath.Join(s.dir, "packs", packName(n)) }

func (s *Store) loosePath(d manifest.Digest) string {
	return filepath.Join(s.dir, "loose", d.String())
}

func (s *Store) pendingPath(d manifest.Digest) string {
	return filepath.Join(s.dir, "tmp", d.String())
}
