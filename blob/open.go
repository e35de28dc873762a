package blob

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
)

// Open opens the store in dir, and makes it where there is none. What it finds
// is durable when it returns, and what an unfinished flush left torn is gone.
// The caller sees to it that nobody else has the directory open.
func Open(dir string, o Options) (*Store, error) { return open(dir, o, realDisk()) }

func open(dir string, o Options, d disk) (_ *Store, err error) {
	if o.PackLimit, err = limit("PackLimit", o.PackLimit, 64<<20, 1<<30); err != nil {
		return nil, err
	}
	if o.SmallLimit, err = limit("SmallLimit", o.SmallLimit, 128<<10, maxRecord); err != nil {
		return nil, err
	}
	s := &Store{
		dir:   dir,
		opts:  o,
		log:   cmp.Or(o.Log, slog.New(slog.DiscardHandler)),
		disk:  d,
		room:  room{dir: dir, reserve: o.Reserve, free: d.free},
		index: map[manifest.Digest]place{},
		packs: map[uint32]*pack{},

		pending:  map[manifest.Digest]struct{}{},
		suspects: map[manifest.Digest]struct{}{},

		hurtPacks: map[uint32]struct{}{}, hurt: make(chan struct{}, 1),
	}
	s.buffers = sync.Pool{New: func() any {
		b := make([]byte, headerSize+o.SmallLimit+1)
		return &b
	}}
	s.room.spare = func() bool { return s.trimPartials(0) }
	defer func() {
		if err != nil {
			for _, p := range s.packs {
				p.release()
			}
			err = fmt.Errorf("open the blob store %s: %w", dir, err)
		}
	}()
	if err := s.layOut(); err != nil {
		return nil, err
	}
	if err := s.readPacks(); err != nil {
		return nil, err
	}
	if err := s.readLoose(); err != nil {
		return nil, err
	}
	// A process that was killed may have left names unflushed.
	if err := errors.Join(s.disk.syncDir(filepath.Join(dir, "packs")), s.disk.syncDir(filepath.Join(dir, "loose"))); err != nil {
		return nil, err
	}
	s.tmp, err = os.Open(filepath.Join(dir, "tmp"))
	return s, err
}

func limit(name string, n, otherwise, most int64) (int64, error) {
	if n < 0 || n > most {
		return 0, fmt.Errorf("%s %d is out of range, the most is %d", name, n, most)
	}
	return cmp.Or(n, otherwise), nil
}

// layOut makes the directories and the id where they are missing.
func (s *Store) layOut() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.checkFormat(); err != nil {
		return err
	}
	for _, name := range []string{"packs", "loose"} {
		path := filepath.Join(s.dir, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		// A store that lost its content gave receipts that hold no longer: it
		// must not be taken for the one that gave them.
		if err := s.disk.remove(filepath.Join(s.dir, "id")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := s.disk.syncDir(s.dir); err != nil {
			return err
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
	}
	tmp := filepath.Join(s.dir, "tmp")
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "partial"), 0o700); err != nil {
		return err
	}
	return s.readID()
}

func (s *Store) readID() error {
	path := filepath.Join(s.dir, "id")
	b, err := os.ReadFile(path)
	if err == nil {
		s.id = strings.TrimSpace(string(b))
		if !strings.HasPrefix(s.id, "s-") || len(s.id) != 34 {
			return fmt.Errorf("%s does not hold a store's id; remove the whole store, and its content is fetched anew", path)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.id = cluster.NewStoreID()
	f, err := os.OpenFile(filepath.Join(s.dir, "tmp", "id"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s.id + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := s.disk.rename(f.Name(), path); err != nil {
		return err
	}
	return s.disk.syncDir(s.dir)
}

// readPacks walks all packs, oldest first, so that of two copies the newer is
// used. The newest goes on being written where it is not full.
func (s *Store) readPacks() error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "packs"))
	if err != nil {
		return err
	}
	var numbers []uint32
	for _, e := range entries {
		n, ok := packNumber(e.Name())
		if !ok {
			s.log.Warn("blob store: a file in packs/ is none of ours and is left alone", "file", e.Name())
			continue
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		p, whole, err := s.readPack(n)
		if err != nil {
			return err
		}
		s.last = n
		switch newest := i == len(numbers)-1; {
		case whole:
		case newest && p.end < s.opts.PackLimit:
			s.current = p
		default:
			if err := s.seal(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// readPack indexes one pack. whole is true where it was sealed; otherwise it
// was read through, and flushed.
func (s *Store) readPack(n uint32) (p *pack, whole bool, err error) {
	f, err := os.OpenFile(s.packPath(n), os.O_RDWR, 0)
	if err != nil {
		return nil, false, err
	}
	p = newPack(n, f)
	s.packs[n] = p
	fi, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	size, whole := sealed(f, fi.Size())
	p.end, err = walk(f, size, !whole, func(r record) {
		s.set(r.digest, place{size: r.size, offset: uint32(r.offset), pack: n})
	}, func(offset, bytes int64) {
		d := Damage{File: f.Name(), Offset: offset, Bytes: bytes, Cut: !whole && offset+bytes == size}
		s.damage = append(s.damage, d)
		// Most likely a flush that was not finished; but a flushed record that
		// was flipped looks the same.
		if d.Cut {
			s.noteDamage(loose) // the pack itself is sound again
		} else {
			s.noteDamage(n)
		}
		s.log.Warn("blob store: " + d.String())
	})
	if err != nil {
		return nil, false, err
	}
	if whole {
		p.end = size // damage behind the last record included
	} else {
		if err := errors.Join(f.Truncate(p.end), s.disk.sync(f)); err != nil {
			return nil, false, err
		}
	}
	p.flushed = p.end
	s.used += p.end
	return p, whole, nil
}

func (s *Store) readLoose() error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "loose"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		d, err := manifest.ParseDigest(e.Name())
		if err != nil || !e.Type().IsRegular() {
			s.log.Warn("blob store: a file in loose/ is none of ours and is left alone", "file", e.Name())
			continue
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		s.spooled++
		s.set(d, place{size: fi.Size(), offset: s.spooled, pack: loose})
		s.used += fi.Size()
	}
	return nil
}
