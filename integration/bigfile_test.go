package integration

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A large file is written slowly. Readers on the other nodes poll all the
// time and never see a part of it, nor of the version that replaces it; and
// nobody's other files wait for it.
func TestPromise_NoTornFile_SlowBigFile(t *testing.T) {
	t.Parallel()
	const mb = 300
	const path = "webapps/big.war"
	c := newCluster(t, 3)
	author := c.nodes[0]
	write(t, author.tree, "webapps/readme.txt", "here\n")
	c.waitEqual(30 * time.Second)

	watch := newWatch(path)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for _, n := range c.nodes[1:] {
		readers.Go(func() { watch.poll(ctx, t, n) })
	}
	var slowest time.Duration
	flush := flushing(c.dir, ctx.Done())
	readers.Go(func() { slowest = otherFiles(ctx, t, c) })

	span, longest := size(10*time.Second, time.Minute), time.Duration(0)
	for version := range 2 {
		sum := writeSlowly(t, filepath.Join(author.tree, path), mb, uint64(version), span, watch)
		span /= 2
		took := eventually(t, 2*time.Minute, "the whole file on the peers", func() error {
			if n := watch.saw(sum); n < 2 {
				return fmt.Errorf("%d of 2 peers have it", n)
			}
			return nil
		})
		longest = max(longest, took)
		t.Logf("version %d: %d MB stood on both peers %v after the writer's close", version, mb, took.Round(time.Millisecond))
	}
	stop()
	readers.Wait()
	t.Logf("meanwhile the slowest of the other files took %v", slowest.Round(time.Millisecond))
	// A busy machine, or disk, is slow for all of them: a file is a chain of flushes.
	stall := <-flush
	if limit := max(15*time.Second, longest*2/3) + 8*stall; slowest > limit {
		t.Errorf("another file waited %v for the large one, which took %v; a flush took up to %v", slowest, longest, stall)
	}
	c.waitEqual(time.Minute)
}

// writeSlowly writes mb megabytes of noise in place over about span, and
// tells the watch what the whole file is before it closes it.
func writeSlowly(t *testing.T, path string, mb int, seed uint64, span time.Duration, w *watch) (sum string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	rng := rand.NewChaCha8([32]byte{byte(seed)})
	block := make([]byte, 1<<20)
	for range mb {
		_, _ = rng.Read(block)
		_, _ = h.Write(block)
		if _, err := f.Write(block); err != nil {
			t.Fatal(err)
		}
		if err := sleep(t.Context(), span/time.Duration(mb)); err != nil {
			t.Fatal(err)
		}
	}
	sum = fmt.Sprintf("%x", h.Sum(nil))
	w.allow(sum)
	return sum
}

// watch is what readers of a path may see, and what they saw.
type watch struct {
	path string
	mu   sync.Mutex
	ok   map[string]bool           // digests of whole versions
	seen map[string]map[*node]bool // digest → who holds it
}

func newWatch(path string) *watch {
	return &watch{path: path, ok: map[string]bool{}, seen: map[string]map[*node]bool{}}
}

func (w *watch) allow(sum string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ok[sum] = true
}

func (w *watch) saw(sum string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.seen[sum])
}

// poll opens the path over and over and reads whatever inode it gets to its
// end: it must be a whole version each time.
func (w *watch) poll(ctx context.Context, t *testing.T, n *node) {
	var last fs.FileInfo
	for sleep(ctx, 2*time.Millisecond) == nil {
		f, err := os.Open(filepath.Join(n.tree, w.path))
		if errors.Is(err, fs.ErrNotExist) {
			if last != nil {
				t.Errorf("%s: %s vanished while it was replaced", n.name, w.path)
				return
			}
			continue
		}
		if err != nil {
			t.Error(err)
			return
		}
		info, err := f.Stat()
		if err == nil && last != nil && os.SameFile(info, last) && info.Size() == last.Size() && info.ModTime().Equal(last.ModTime()) {
			_ = f.Close()
			continue
		}
		h := sha256.New()
		if err == nil {
			_, err = io.Copy(h, f)
		}
		_ = f.Close()
		if err != nil {
			t.Error(err)
			return
		}
		last = info
		sum := fmt.Sprintf("%x", h.Sum(nil))
		w.mu.Lock()
		if !w.ok[sum] {
			t.Errorf("%s: a reader saw %d bytes that are no whole version of %s", n.name, info.Size(), w.path)
		}
		if w.seen[sum] == nil {
			w.seen[sum] = map[*node]bool{}
		}
		w.seen[sum][n] = true
		w.mu.Unlock()
	}
}

// otherFiles edits a small file on each node in turn and waits for it on the
// next; it returns the slowest.
func otherFiles(ctx context.Context, t *testing.T, c *cluster) (slowest time.Duration) {
	for i := 0; sleep(ctx, 100*time.Millisecond) == nil; i++ {
		from, to := c.nodes[i%3], c.nodes[(i+1)%3]
		text := fmt.Sprintf("edit %d\n", i)
		start := time.Now()
		if err := writeFile(from.tree, "small.xml", text); err != nil {
			t.Error(err)
			return slowest
		}
		for _, n := range []*node{to, c.nodes[(i+2)%3]} {
			err := poll(ctx, time.Minute, func() error { return stands(n.tree, "small.xml", text) })
			if ctx.Err() != nil {
				return slowest
			}
			if err != nil {
				t.Errorf("a small file beside the large one: %v", err)
				return slowest
			}
		}
		slowest = max(slowest, time.Since(start))
	}
	return slowest
}
