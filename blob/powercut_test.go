package blob

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/gatesync/gatesync/integration/powercut"
	"github.com/gatesync/gatesync/manifest"
)

// cutting cuts the power at the nth operation of a store's disk. Every one is
// a step: a new one in type disk does not compile here until it is counted.
type cutting struct {
	power *powercut.Disk
	at, n int
	err   error
}

var errCut = errors.New("the power is gone")

func (c *cutting) step(op func() error) error {
	c.n++
	if c.n == c.at {
		c.err = c.power.Snapshot()
	}
	if c.at > 0 && c.n >= c.at {
		return errCut
	}
	var err error
	c.power.During(func() { err = op() })
	return err
}

func (c *cutting) disk() disk {
	real := realDisk()
	return disk{
		real.free,
		func(f *os.File, b []byte, off int64) (n int, err error) {
			err = c.step(func() error { n, err = real.write(f, b, off); return err })
			return n, err
		},
		func(f *os.File) error { return c.step(func() error { return real.sync(f) }) },
		func(f *os.File) error { return c.step(func() error { return real.syncfs(f) }) },
		func(p string) error { return c.step(func() error { return real.syncDir(p) }) },
		func(from, to string) error { return c.step(func() error { return real.rename(from, to) }) },
		func(p string) error { return c.step(func() error { return real.remove(p) }) },
	}
}

// TestPromise_NoLoss_PowerCutInTheStore cuts the power at every operation of a
// store that is filled, flushed and collected: what was flushed is there, what
// is answered for is whole, and the store goes on.
func TestPromise_NoLoss_PowerCutInTheStore(t *testing.T) {
	stride := 3
	if os.Getenv("GATESYNC_LONG") != "" {
		stride = 1
	}
	for n, more := 1, true; more; n += stride {
		t.Run(fmt.Sprintf("operation %d", n), func(t *testing.T) {
			c := &cutting{power: powercut.New(t), at: n}
			w := &work{dir: filepath.Join(c.power.Path, "s"), keep: map[manifest.Digest]bool{}}
			err := w.live(t, c.disk())
			if c.err != nil {
				t.Fatal(c.err)
			}
			if more = c.n >= n; more {
				c.power.Cut()
			} else if err != nil {
				t.Fatal(err)
			}
			w.check(t)
		})
		if t.Failed() {
			return
		}
	}
}

// work is what a store does until the power goes.
type work struct {
	dir          string
	all, flushed [][]byte
	keep         map[manifest.Digest]bool // once the collection has begun
}

func (w *work) live(t *testing.T, d disk) error {
	s, err := open(w.dir, small, d)
	if err != nil {
		return err
	}
	defer s.Close()
	for batch := range 4 {
		var now [][]byte
		for i, size := range []int{300, 900, 5000, 700, 900, 9000} { // in packs and alone
			b := content(uint64(100*batch+i), size)
			w.all, now = append(w.all, b), append(now, b)
			if _, err := s.PutBytes(b); err != nil {
				return err
			}
		}
		if err := s.Flush(); err != nil {
			return err
		}
		w.flushed = append(w.flushed, now...)
	}
	for i, b := range w.flushed {
		w.keep[manifest.DigestOf(b)] = i%3 == 0
	}
	_, err = s.Collect(t.Context(), func(d manifest.Digest) bool { return w.keep[d] })
	return err
}

func (w *work) check(t *testing.T) {
	s := openAt(t, w.dir, small)
	for _, b := range w.flushed {
		if len(w.keep) == 0 || w.keep[manifest.DigestOf(b)] {
			mustHold(t, s, b)
		}
	}
	for _, b := range w.all {
		if s.Has(manifest.DigestOf(b)) {
			mustHold(t, s, b)
		}
		put(t, s, b)
		mustHold(t, s, b)
	}
	flush(t, s)
	closeStore(t, s)
}
