package blob

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
)

func TestRoomBelowTheReserveIsRefusedAndComesBack(t *testing.T) {
	var free atomic.Int64
	d := realDisk()
	d.free = func(string) (int64, error) { return free.Load(), nil }
	o := small
	o.Reserve = 10_000
	s := openDisk(t, t.TempDir(), o, d)
	free.Store(12_000)
	first := content(1, 1000)
	put(t, s, first)
	free.Store(10_500)
	s.room.granted = 0 // as if a second had passed
	for _, b := range [][]byte{content(2, 1000), content(3, 5000)} {
		ref := manifest.BlobRef{Digest: manifest.DigestOf(b), Size: int64(len(b))}
		_, err := s.Put(bytes.NewReader(b))
		var room *RoomError
		if !errors.Is(err, ErrNoRoom) || !errors.As(err, &room) || room.Reserve != 10_000 || room.Free != 10_500 {
			t.Errorf("Put of %d bytes: %v", len(b), err)
		}
		if err := s.PutKnown(ref, bytes.NewReader(b)); !errors.Is(err, ErrNoRoom) {
			t.Errorf("PutKnown of %d bytes: %v", len(b), err)
		}
		if s.Has(ref.Digest) {
			t.Error("Has what was refused")
		}
	}
	flush(t, s)
	mustHold(t, s, first)
	free.Store(1 << 30)
	for i, n := range []int{1000, 5000} {
		b := content(uint64(2+i), n)
		put(t, s, b)
		mustHold(t, s, b)
	}
}

func TestFullDiskLosesNothing(t *testing.T) {
	var full atomic.Bool
	d := realDisk()
	d.write = func(f *os.File, b []byte, off int64) (int, error) {
		if !full.Load() {
			return f.WriteAt(b, off)
		}
		n, _ := f.WriteAt(b[:len(b)/2], off) // as a disk does that fills up
		return n, &os.PathError{Op: "write", Path: f.Name(), Err: unix.ENOSPC}
	}
	dir := t.TempDir()
	s := openDisk(t, dir, small, d)
	kept := [][]byte{content(1, 700), content(2, 7000)}
	for _, b := range kept {
		put(t, s, b)
	}
	full.Store(true)
	refused := [][]byte{content(3, 700), content(4, 7000)}
	for _, b := range refused {
		if _, err := s.Put(bytes.NewReader(b)); !errors.Is(err, ErrNoRoom) || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Put on a full disk: %v", err)
		}
	}
	flush(t, s)
	crashed := openAt(t, copyDir(t, dir), small)
	full.Store(false)
	for _, b := range refused {
		put(t, s, b)
		kept = append(kept, b)
	}
	flush(t, s)
	for _, b := range kept {
		mustHold(t, s, b)
	}
	for _, b := range kept[:2] {
		mustHold(t, crashed, b)
	}
	if d := crashed.Damage(); len(d) != 0 {
		t.Errorf("a refused write was left in the pack: %v", d)
	}
}

// After a failed flush the kernel calls the pages clean. A store that merely
// flushed again would promise what is not on disk.
func TestFailedFlushIsMadeGoodByWritingAnew(t *testing.T) {
	var broken atomic.Bool
	var mu sync.Mutex
	lost := map[string]bool{}     // files whose flush failed: what was unflushed there is gone
	durable := map[string]int64{} // pack → length at its last good flush
	d := realDisk()
	d.sync = func(f *os.File) error {
		mu.Lock()
		defer mu.Unlock()
		if broken.Load() {
			lost[f.Name()] = true
			return unix.EIO
		}
		fi, err := f.Stat()
		if !lost[f.Name()] {
			durable[f.Name()] = fi.Size()
		}
		return err
	}
	d.syncfs = func(f *os.File) error { return errors.New("not reached with few files") }
	dir := t.TempDir()
	s := openDisk(t, dir, small, d)
	first := content(1, 500)
	put(t, s, first)
	flush(t, s)
	second, large := content(2, 600), content(3, 6000)
	put(t, s, second)
	put(t, s, large)
	broken.Store(true)
	for range 2 {
		if err := s.Flush(); !errors.Is(err, unix.EIO) {
			t.Fatalf("Flush on a broken disk: %v", err)
		}
	}
	broken.Store(false)
	flush(t, s)

	// The power goes: what failed files held behind their last good flush is zeros.
	crashed := copyDir(t, dir)
	for _, path := range packFiles(t, crashed) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		clear(b[durable[strings.Replace(path, crashed, dir, 1)]:])
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	after := openAt(t, crashed, small)
	for _, b := range [][]byte{first, second, large} {
		mustHold(t, s, b)
		mustHold(t, after, b)
	}
	if lost[filepath.Join(dir, "packs", "00000001")] == false {
		t.Error("the fault was not injected")
	}
}

func TestFailedFlushAtTheEndOfAPackIsHeardOf(t *testing.T) {
	var broken atomic.Bool
	d := realDisk()
	d.sync = func(f *os.File) error {
		if broken.Load() {
			return unix.EIO
		}
		return unix.Fdatasync(int(f.Fd()))
	}
	s := openDisk(t, t.TempDir(), small, d)
	var all [][]byte
	for i := range 4 {
		all = append(all, content(uint64(i), 900))
	}
	for _, b := range all[:3] {
		put(t, s, b)
	}
	broken.Store(true)
	put(t, s, content(9, 1000))
	put(t, s, all[3]) // ends the pack, whose flush fails: not this Put's fault
	broken.Store(false)
	flush(t, s)
	for _, b := range all {
		mustHold(t, s, b)
		if s.index[manifest.DigestOf(b)].pack == 1 {
			t.Error("a blob still lies in the pack whose flush failed")
		}
	}
}

func TestLossBeforeTheFlushEndsTheStore(t *testing.T) {
	var broken atomic.Bool
	d := realDisk()
	d.sync = func(f *os.File) error {
		if broken.Load() {
			return unix.EIO
		}
		return nil
	}
	s := openDisk(t, t.TempDir(), small, d)
	ref := put(t, s, content(1, 500))
	broken.Store(true)
	if err := s.Flush(); err == nil {
		t.Fatal("Flush succeeded")
	}
	corrupt(t, s.packPath(1), headerSize+5)
	broken.Store(false)
	for range 2 {
		if err := s.Flush(); !errors.Is(err, ErrLost) {
			t.Fatalf("Flush after the loss: %v", err)
		}
	}
	if s.Has(ref.Digest) {
		t.Fatal("still answers for what was lost")
	}
}

func TestManyLargeBlobsShareOneSyncfs(t *testing.T) {
	var each, all atomic.Int32
	d := realDisk()
	d.sync = func(*os.File) error { each.Add(1); return nil }
	d.syncfs = func(*os.File) error { all.Add(1); return nil }
	s := openDisk(t, t.TempDir(), small, d)
	for i := range syncfsFrom {
		put(t, s, content(uint64(i), 2000))
	}
	flush(t, s)
	if each.Load() != 0 || all.Load() != 1 {
		t.Fatalf("%d flushes of a file, %d of the filesystem", each.Load(), all.Load())
	}
	if left, err := os.ReadDir(filepath.Join(s.dir, "tmp")); err != nil || len(left) != 0 {
		t.Fatalf("left in tmp: %v %v", left, err)
	}
}

func TestConcurrentFlushesAreShared(t *testing.T) {
	var syncs atomic.Int32
	entered, release := make(chan struct{}, 10), make(chan struct{})
	d := realDisk()
	d.sync = func(*os.File) error {
		syncs.Add(1)
		entered <- struct{}{}
		<-release
		return nil
	}
	s := openDisk(t, t.TempDir(), small, d)
	put(t, s, content(1, 100))
	var wg sync.WaitGroup
	wg.Go(func() { flush(t, s) })
	<-entered // one runs
	const n = 50
	for i := range n {
		put(t, s, content(uint64(10+i), 10))
		wg.Go(func() { flush(t, s) })
	}
	for joined := false; !joined; { // the second round is announced
		s.joining.Lock()
		joined = s.next != nil
		s.joining.Unlock()
	}
	close(release)
	wg.Wait()
	if c := syncs.Load(); c < 2 || c > 20 {
		t.Fatalf("%d flushes for %d callers", c, n+1)
	}
}
