package blob

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

func set(all ...[]byte) func(manifest.Digest) bool {
	m := map[manifest.Digest]bool{}
	for _, b := range all {
		m[manifest.DigestOf(b)] = true
	}
	return func(d manifest.Digest) bool { return m[d] }
}

func TestCollectKeepsWhatLivesAndFreesTheRest(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, small)
	var live, dead [][]byte
	for i := range 40 {
		b := content(uint64(i), 500+30*i)
		put(t, s, b)
		if i%5 == 0 {
			live = append(live, b)
		} else {
			dead = append(dead, b)
		}
	}
	flush(t, s)
	before := s.Stats()
	c, err := s.Collect(t.Context(), set(live...))
	if err != nil {
		t.Fatal(err)
	}
	after := s.Stats()
	if c.Blobs != len(dead) || after.Blobs != len(live) || c.Bytes != before.Bytes-after.Bytes || c.Packs == 0 {
		t.Errorf("collected %+v: from %+v to %+v", c, before, after)
	}
	var used int64
	for _, f := range append(packFiles(t, dir), mustGlob(t, filepath.Join(dir, "loose", "*"))...) {
		fi, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		used += fi.Size()
	}
	if used > after.Disk+headerSize*int64(len(packFiles(t, dir))) || used < after.Disk || after.Disk > before.Disk/2 {
		t.Errorf("%d bytes on disk, Stats says %d (it was %d)", used, after.Disk, before.Disk)
	}
	check := func(s *Store) {
		t.Helper()
		for _, b := range live {
			mustHold(t, s, b)
		}
		for _, b := range dead {
			if s.Has(manifest.DigestOf(b)) {
				t.Errorf("a dead blob of %d bytes is still there", len(b))
			}
		}
	}
	check(s)
	check(openAt(t, copyDir(t, dir), small)) // what was moved is durable
}

func mustGlob(t *testing.T, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestCollectLeavesWellFilledPacksAlone(t *testing.T) {
	s := openAt(t, t.TempDir(), small)
	a, b, c := content(1, 900), content(2, 900), content(3, 900)
	for _, x := range [][]byte{a, b, c} {
		put(t, s, x)
	}
	got, err := s.Collect(t.Context(), set(a, b))
	if err != nil || got != (Collected{}) {
		t.Fatalf("%+v, %v", got, err)
	}
	mustHold(t, s, c) // it costs less to keep than to move the others
}

func TestCollectSparesWhatIsTouchedMeanwhile(t *testing.T) {
	for _, size := range []int{900, 9000} {
		s := openAt(t, t.TempDir(), small)
		again, asked, opened := content(1, size), content(2, size), content(3, size)
		var doomed [][]byte
		for i, b := range [][]byte{again, asked, opened} {
			put(t, s, b)
			for j := range 3 { // each pack is to be mostly dead
				doomed = append(doomed, content(uint64(100+10*i+j), size))
				put(t, s, doomed[len(doomed)-1])
			}
		}
		flush(t, s)
		var reader *Reader
		fresh := content(5, size)
		var once sync.Once
		_, err := s.Collect(t.Context(), func(manifest.Digest) bool {
			once.Do(func() { // Collect has begun
				put(t, s, again)
				put(t, s, fresh)
				if !s.Has(manifest.DigestOf(asked)) {
					t.Error("Has")
				}
				var err error
				if reader, err = s.Open(manifest.DigestOf(opened)); err != nil {
					t.Fatal(err)
				}
			})
			return false
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{again, fresh, asked, opened} {
			mustHold(t, s, b)
		}
		for _, b := range doomed {
			if s.Has(manifest.DigestOf(b)) {
				t.Error("what nobody touched is still there")
			}
		}
		if have, err := io.ReadAll(reader); err != nil || !bytes.Equal(have, opened) {
			t.Errorf("a reader under a Collect: %v", err)
		}
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestReaderOutlivesCollect(t *testing.T) {
	for _, size := range []int{900, 9000} {
		s := openAt(t, t.TempDir(), small)
		b := content(1, size)
		ref := put(t, s, b)
		flush(t, s)
		r, err := s.Open(ref.Digest)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if c, err := s.Collect(t.Context(), set()); err != nil || c.Blobs != 1 {
			t.Fatalf("%+v %v", c, err)
		}
		if have, err := io.ReadAll(r); err != nil || !bytes.Equal(have, b) {
			t.Fatal(err)
		}
	}
}

// Everything at once, under the race detector: whoever found or put a blob
// while no Collect took it for dead reads it whole.
func TestCollectBesidePutOpenAndFlush(t *testing.T) {
	s := openAt(t, t.TempDir(), small)
	const n = 60
	blobs := make([][]byte, n)
	digests := make([]manifest.Digest, n)
	for i := range blobs {
		blobs[i] = content(uint64(i), 200+40*i) // a few are loose
		digests[i] = manifest.DigestOf(blobs[i])
	}
	// The blobs that somebody is about to use are vouched for, as callers do.
	var used [n]atomic.Int32
	where := map[manifest.Digest]int{}
	for i, d := range digests {
		where[d] = i
	}
	var stop atomic.Bool
	var work, collector sync.WaitGroup
	collector.Go(func() {
		for !stop.Load() {
			if _, err := s.Collect(t.Context(), func(d manifest.Digest) bool { return used[where[d]].Load() > 0 }); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for w := range 4 {
		work.Go(func() {
			for round := range 150 {
				i := (round*7 + w*13) % n
				used[i].Add(1)
				if _, err := s.Put(bytes.NewReader(blobs[i])); err != nil {
					t.Error(err)
					return
				}
				if round%10 == 0 {
					if err := s.Flush(); err != nil {
						t.Error(err)
					}
				}
				if have, err := get(s, digests[i]); err != nil || !bytes.Equal(have, blobs[i]) {
					t.Errorf("blob %d: %v", i, err)
				}
				used[i].Add(-1)
			}
		})
	}
	work.Wait()
	stop.Store(true)
	collector.Wait()
	if err := s.Verify(t.Context(), func(r manifest.BlobRef, err error) {
		if err != nil {
			t.Errorf("%v: %v", r, err)
		}
	}); err != nil {
		t.Error(err)
	}
}

func TestCollectRunsOnAFullDisk(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 30)
	d := realDisk()
	d.free = func(string) (int64, error) { return free.Load(), nil }
	s := openDisk(t, t.TempDir(), small, d)
	live := content(1, 500)
	put(t, s, live)
	for i := range 3 {
		put(t, s, content(uint64(10+i), 900))
	}
	flush(t, s)
	free.Store(0)
	s.room.granted = 0
	if c, err := s.Collect(t.Context(), set(live)); err != nil || c.Blobs != 3 {
		t.Fatalf("%+v %v", c, err)
	}
	mustHold(t, s, live)
}
