package integration

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// workload is what gateways do while things break: a writer on every node, and
// readers that look for what nobody must see. It knows what has to come of it:
//
//   - A path under the node's own name is written on that node alone: in the
//     end its last content stands on all nodes, and it never conflicts.
//   - A path under shared is written on all nodes at once: in the end one
//     content stands everywhere, and the last one of each node stands there, or
//     was a revision, or is kept aside on that node.
//   - On the other nodes a path under kept is there from the first sight on, and
//     always whole.
type workload struct {
	c     *cluster
	seed  uint64
	pause time.Duration // the longest between two steps of a writer

	gate   sync.RWMutex // writers hold it shared while they write
	stop   context.CancelFunc
	ended  sync.WaitGroup
	writes atomic.Int64
	reads  atomic.Int64

	mu     sync.Mutex
	want   []map[string]string // by node: own paths, "" where it was removed
	shared []map[string]string // by node: what it last wrote to a shared path
	dirty  []map[string]bool   // by node: paths whose last write failed (a full disk)
	torn   map[string]bool     // contents that a gateway's own failed write has left (a full disk)
	wrong  error               // the first thing that nobody must see

	aside map[string]string // conflicts seen: node/id → sha256
	since uint64            // revision of the last check
}

const (
	loadDirs   = 4
	loadFiles  = 8
	loadShared = 5
)

// startLoad lets the writers loose. check looks at what came of it, halt ends
// it.
func startLoad(c *cluster, seed uint64, pause time.Duration) *workload {
	ctx, cancel := context.WithCancel(context.Background())
	l := &workload{c: c, seed: seed, pause: pause, stop: cancel, torn: map[string]bool{}, aside: map[string]string{}}
	for i := range c.nodes {
		l.want = append(l.want, map[string]string{})
		l.shared = append(l.shared, map[string]string{})
		l.dirty = append(l.dirty, map[string]bool{})
		l.ended.Go(func() { l.write(ctx, i) })
		l.ended.Go(func() { l.read(ctx, i) })
	}
	return l
}

// halt ends writers and readers; it may be called again.
func (l *workload) halt() {
	l.stop()
	l.ended.Wait()
}

func (l *workload) random(what string, node int) *rand.Rand {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %d", l.seed, what, node))
	return rand.New(rand.NewPCG(uint64(sum[0])<<8|uint64(sum[1]), uint64(sum[2])<<8|uint64(sum[3])))
}

// write is the gateway of one node.
func (l *workload) write(ctx context.Context, node int) {
	rng := l.random("writer", node)
	for n := 0; sleep(ctx, time.Duration(rng.Int64N(int64(l.pause)))) == nil; n++ {
		l.gate.RLock()
		l.step(rng, node, n)
		l.gate.RUnlock()
		l.writes.Add(1)
	}
}

func (l *workload) step(rng *rand.Rand, node, n int) {
	name := l.c.nodes[node].name
	path := fmt.Sprintf("%s/d%d/f%d.xml", name, rng.IntN(loadDirs), rng.IntN(loadFiles))
	text := sealed(rng, fmt.Sprintf("%s %d", name, n))
	switch k := rng.IntN(1000); {
	case k < 120:
		path = fmt.Sprintf("shared/s%d.xml", rng.IntN(loadShared))
		l.put(l.shared[node], node, path, text, false)
	case k < 122:
		l.remove(node, path)
	case k < 400:
		path = fmt.Sprintf("%s/kept/k%d.xml", name, rng.IntN(loadFiles))
		l.put(l.want[node], node, path, text, k%2 == 0)
	default:
		l.put(l.want[node], node, path, text, k%3 == 0)
	}
}

// put writes a file: in place as most tools do, or beside and renamed over.
func (l *workload) put(into map[string]string, node int, path, text string, beside bool) {
	root := l.c.nodes[node].tree
	var err error
	if beside {
		if err = writeFile(root, path+".tmp", text); err == nil {
			err = os.Rename(filepath.Join(root, path+".tmp"), filepath.Join(root, path))
		} else {
			_ = os.Remove(filepath.Join(root, path+".tmp"))
		}
	} else {
		err = writeFile(root, path, text)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		into[path] = text
	}
	switch {
	case err == nil:
		delete(l.dirty[node], path)
	case !beside:
		l.dirty[node][path] = true
		l.torn[shaOf(content(root, path))] = true
	}
}

func (l *workload) remove(node int, path string) {
	if err := os.Remove(filepath.Join(l.c.nodes[node].tree, path)); err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.want[node][path] = ""
	delete(l.dirty[node], path)
}

// sealed is a content that tells whether it is whole: its last line is the
// digest of the rest. Most are small, a few are large.
func sealed(rng *rand.Rand, what string) string {
	size := 100 + rng.IntN(8<<10)
	switch rng.IntN(200) {
	case 0:
		size = 5 << 20
	case 1, 2, 3:
		size = 300 << 10
	}
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "<!-- %s line %d -->\n", what, i)
	}
	sum := sha256.Sum256([]byte(b.String()))
	b.WriteString(hex.EncodeToString(sum[:]) + "\n")
	return b.String()
}

// whole tells whether a content is one that was written.
func whole(b []byte) bool {
	const tail = 2*sha256.Size + 1
	if len(b) < tail {
		return false
	}
	sum := sha256.Sum256(b[:len(b)-tail])
	return string(b[len(b)-tail:]) == hex.EncodeToString(sum[:])+"\n"
}

// read is a gateway of one node that serves what the others write.
func (l *workload) read(ctx context.Context, node int) {
	rng := l.random("reader", node)
	seen := map[string]bool{}
	for sleep(ctx, time.Duration(rng.Int64N(int64(4*time.Millisecond)))) == nil {
		other := rng.IntN(len(l.c.nodes))
		if other == node {
			continue
		}
		path := fmt.Sprintf("%s/kept/k%d.xml", l.c.nodes[other].name, rng.IntN(loadFiles))
		b, err := os.ReadFile(filepath.Join(l.c.nodes[node].tree, path))
		switch {
		case err == nil && !whole(b) && !l.byItself(ctx, b):
			l.complain(fmt.Errorf("%s on %s was seen with %d bytes that nobody wrote", path, l.c.nodes[node].name, len(b)))
		case err == nil:
			seen[path] = true
		case errors.Is(err, fs.ErrNotExist) && seen[path]:
			l.complain(fmt.Errorf("%s on %s was gone for a moment", path, l.c.nodes[node].name))
		}
		l.reads.Add(1)
	}
}

// byItself tells whether a gateway's own failed write has left this content.
// The writers stand still meanwhile: one of them may be about to say so.
func (l *workload) byItself(ctx context.Context, b []byte) bool {
	for !l.gate.TryLock() {
		if sleep(ctx, time.Millisecond) != nil {
			return true
		}
	}
	defer l.gate.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.torn[shaOf(string(b))]
}

func (l *workload) complain(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wrong == nil {
		l.wrong = fmt.Errorf("%s: %w", time.Now().Format("15:04:05.000"), err)
	}
}

// check stops the writers for a moment and compares what the nodes hold with
// what was written. All nodes run and nothing is broken any more.
func (l *workload) check(limit time.Duration) error {
	l.gate.Lock()
	defer l.gate.Unlock()
	if err := l.writeAgain(); err != nil {
		return err
	}
	tree, err := l.c.equal(limit)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err = errors.Join(l.wrong, l.checkOwn(tree), l.checkShared())
	if s, serr := l.c.nodes[0].status(); serr == nil {
		l.since = s.Revision
	}
	return err
}

// writeAgain repeats what failed for want of space.
func (l *workload) writeAgain() error {
	for i, n := range l.c.nodes {
		for path := range l.dirty[i] {
			text := sealed(l.random(path, i), "again "+path)
			if err := writeFile(n.tree, path, text); err != nil {
				return fmt.Errorf("write again after all has healed: %w", err)
			}
			into := l.want[i]
			if strings.HasPrefix(path, "shared/") {
				into = l.shared[i]
			}
			into[path] = text
			delete(l.dirty[i], path)
		}
	}
	return nil
}

func (l *workload) checkOwn(tree snapshot) error {
	var errs []error
	for i, n := range l.c.nodes {
		for path, text := range l.want[i] {
			what, there := tree[path]
			switch {
			case text == "" && there:
				errs = append(errs, fmt.Errorf("%s was removed on %s and stands", path, n.name))
			case text != "" && !strings.HasSuffix(what, shaOf(text)):
				errs = append(errs, fmt.Errorf("%s is %q, %s last wrote %d bytes %.40q", path, what, n.name, len(text), text))
			}
		}
		for path := range tree {
			if strings.HasPrefix(path, n.name+"/") && strings.HasSuffix(path, ".tmp") {
				errs = append(errs, fmt.Errorf("%s was renamed away and stands", path))
			}
		}
	}
	return errors.Join(errs...)
}

func shaOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// checkShared looks for the last shared writes of each node, and for conflicts
// where there can be none.
func (l *workload) checkShared() error {
	var errs []error
	revisions, err := l.revisions()
	if err != nil {
		return err
	}
	for i, n := range l.c.nodes {
		if err := l.readAside(n); err != nil {
			errs = append(errs, err)
		}
		for path, text := range l.shared[i] {
			sum := shaOf(text)
			stands := content(n.tree, path) == text
			if _, kept := l.aside[n.name+"/"+sum]; !stands && !kept && !revisions[manifest.DigestOf([]byte(text)).String()] {
				errs = append(errs, fmt.Errorf("the last write of %s to %s (%d bytes %.40q) is lost", n.name, path, len(text), text))
			}
		}
		l.shared[i] = map[string]string{}
	}
	return errors.Join(errs...)
}

// readAside reads what is kept aside on a node and was not seen before.
func (l *workload) readAside(n *node) error {
	a := n.ask("conflicts", "--json")
	var rows []struct{ ID, Path, Why string }
	if err := json.Unmarshal([]byte(a.stdout), &rows); err != nil {
		return fmt.Errorf("conflicts of %s: %w: %s", n.name, err, a.stderr)
	}
	var errs []error
	for _, r := range rows {
		if _, known := l.aside[n.name+":"+r.ID]; known {
			continue
		}
		l.aside[n.name+":"+r.ID] = r.Path
		a := n.ask("conflicts", "show", r.ID)
		if a.code != 0 {
			errs = append(errs, fmt.Errorf("what lost a conflict cannot be had: %s %s: %s", n.name, r.Path, a.stderr))
			continue
		}
		l.aside[n.name+"/"+shaOf(a.stdout)] = r.Path
		if !strings.HasPrefix(r.Path, "shared") {
			errs = append(errs, fmt.Errorf("a conflict on %s about %s, which one node alone wrote: %s: kept %.60q", n.name, r.Path, r.Why, a.stdout))
		}
	}
	return errors.Join(errs...)
}

// revisions are the digests that were committed since the last check.
func (l *workload) revisions() (map[string]bool, error) {
	s, err := l.c.nodes[0].status()
	if err != nil {
		return nil, err
	}
	limit := max(s.Revision, l.since) - l.since + 10
	a := l.c.nodes[0].ask("log", "--json", "--paths", "--limit", fmt.Sprint(limit))
	var rows []struct{ Changes []struct{ Digest string } }
	if err := json.Unmarshal([]byte(a.stdout), &rows); err != nil {
		return nil, fmt.Errorf("log: %w: %s", err, a.stderr)
	}
	found := map[string]bool{}
	for _, r := range rows {
		for _, ch := range r.Changes {
			found[ch.Digest] = true
		}
	}
	return found, nil
}
