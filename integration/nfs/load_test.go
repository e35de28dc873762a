package nfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// load is what gateways do while things break: beside each node one writes
// files under the node's own name, and one reads what the others write. It
// knows what has to come of it:
//
//   - The last content that was written without an error stands everywhere. (One
//     that failed is written again when the fault is over, as its author would.)
//   - Nothing is ever removed, so that nothing may be gone, or be removed in the
//     log; and nothing conflicts, for each path is one node's.
//   - A file that is renamed into place is whole, wherever and whenever it is read.
type load struct {
	c    *cluster
	stop context.CancelFunc
	ends sync.WaitGroup
	gate sync.RWMutex // writers hold it shared while they write

	mu     sync.Mutex
	want   map[string]string // path → content that was written last
	failed map[string]*node  // paths whose last write has failed → by whom
	why    error             // of the last failed write
	wrong  []error           // what nobody must see
	counts map[string]int    // what happened, for the log
	free   map[*node]bool    // nodes whose tree may be gone, or empty, now
	rests  map[*node]bool    // nodes whose gateways write nothing now
}

const loadFiles = 6

// startLoad lets the gateways loose, until the (sub)test ends.
func (c *cluster) startLoad() *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{c: c, stop: cancel, want: map[string]string{}, failed: map[string]*node{}, counts: map[string]int{}, free: map[*node]bool{}, rests: map[*node]bool{}}
	for _, n := range c.nodes {
		l.ends.Go(func() { l.writer(ctx, n) })
		l.ends.Go(func() { l.reader(ctx, n) })
	}
	c.b.t.Cleanup(l.end)
	return l
}

// end stops the gateways; again is well.
func (l *load) end() {
	l.stop()
	if err := within(20*time.Second, func() error { l.ends.Wait(); return nil }); err != nil {
		l.c.b.t.Logf("gateways at the end of the test: %v", err)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (l *load) writer(ctx context.Context, n *node) {
	for i := 0; sleep(ctx, time.Duration(100+rand.IntN(300))*time.Millisecond); i++ {
		path := fmt.Sprintf("%s/%s/%d.xml", n.name, []string{"plain", "moved"}[i%2], rand.IntN(loadFiles))
		text := sealed(fmt.Sprintf("%s, write %d", n.name, i))
		l.gate.RLock()
		if !l.resting(n) {
			l.put(n, path, text, i%2 == 1, false)
		}
		l.gate.RUnlock()
	}
}

// put writes as gateways do: in place, or beside and renamed over. What is
// written where the tree was does not count, unless it is surely back.
func (l *load) put(n *node, path, text string, move, back bool) {
	to := path
	if move {
		to = path + ".tmp"
	}
	err := write(n.tree, to, text)
	if err == nil && move {
		err = os.Rename(filepath.Join(n.tree, to), filepath.Join(n.tree, path))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || l.free[n] && !back {
		l.failed[path], l.why = n, err
		l.counts[n.name+" failed writes"]++
		return
	}
	delete(l.failed, path)
	l.want[path] = text
	l.counts[n.name+" writes"]++
}

func (l *load) reader(ctx context.Context, n *node) {
	seen := map[string]bool{}
	for sleep(ctx, time.Duration(20+rand.IntN(80))*time.Millisecond) {
		from := l.c.nodes[rand.IntN(len(l.c.nodes))]
		if from == n {
			continue
		}
		path := fmt.Sprintf("%s/moved/%d.xml", from.name, rand.IntN(loadFiles))
		b, err := os.ReadFile(filepath.Join(n.tree, path))
		l.mu.Lock()
		switch {
		case err == nil && !whole(b):
			l.wrong = append(l.wrong, fmt.Errorf("%s: %s was seen on %s with %d bytes that nobody wrote", time.Now().Format(time.TimeOnly), path, n.name, len(b)))
		case err == nil:
			seen[path] = true
			l.counts[n.name+" reads"]++
		case errors.Is(err, fs.ErrNotExist) && seen[path] && !l.free[n]:
			l.wrong = append(l.wrong, fmt.Errorf("%s: %s was gone on %s for a moment", time.Now().Format(time.TimeOnly), path, n.name))
		case !errors.Is(err, fs.ErrNotExist):
			l.counts[n.name+" failed reads"]++
		}
		l.mu.Unlock()
	}
}

// mayMiss says that a node's tree is (or is not any more) out of reach: what
// its gateway misses, or writes to where the tree was, is no fault of gatesync's.
func (l *load) mayMiss(n *node, may bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free[n] = may
}

// rest lets nodes' gateways write nothing, or write again.
func (l *load) rest(rests bool, nodes ...*node) {
	l.gate.Lock() // who writes just now has ended
	defer l.gate.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range nodes {
		l.rests[n] = rests
	}
}

func (l *load) resting(n *node) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rests[n]
}

// check stops the writers and sees what has come of it, once nothing is broken
// any more; and looks at what else there is to look at while all is quiet.
func (l *load) check(limit time.Duration, quiet func()) {
	t := l.c.b.t
	t.Helper()
	eventually(t, limit, "the gateways' writes end", func() error {
		if !l.gate.TryLock() {
			return errHangs
		}
		return nil
	})
	defer l.gate.Unlock()
	l.mu.Lock()
	failed := l.failed
	l.failed = map[string]*node{}
	l.mu.Unlock()
	for path, n := range failed {
		// A mount may need a moment more: NFSv4 has a period of grace.
		eventually(t, limit, path+" is written again", func() error {
			if l.put(n, path, sealed("again "+path), true, true); l.failed[path] != nil {
				return fmt.Errorf("nothing is broken any more: %w", l.why)
			}
			return nil
		})
	}
	tree := l.c.waitEqual(limit)
	l.c.content(60 * time.Second)
	quiet()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%v", l.counts)
	clear(l.counts)
	for _, err := range l.wrong {
		t.Error(err)
	}
	l.wrong = nil
	for path, text := range l.want {
		if sum := fmt.Sprintf("%x", sha256.Sum256([]byte(text))); !strings.HasSuffix(tree[path], sum) {
			t.Errorf("%s is %q everywhere, the last write was %.50q (%s)", path, tree[path], text, sum)
		}
	}
}

// sealed is a content that tells whether it is whole: its last line is the
// digest of the rest.
func sealed(what string) string {
	var s strings.Builder
	for i := range 2 + rand.IntN(200) {
		fmt.Fprintf(&s, "<!-- %s, line %d -->\n", what, i)
	}
	sum := sha256.Sum256([]byte(s.String()))
	return s.String() + hex.EncodeToString(sum[:]) + "\n"
}

func whole(b []byte) bool {
	const tail = 2*sha256.Size + 1
	if len(b) < tail {
		return false
	}
	sum := sha256.Sum256(b[:len(b)-tail])
	return string(b[len(b)-tail:]) == hex.EncodeToString(sum[:])+"\n"
}
