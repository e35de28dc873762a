package nfs

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// The figures of a shared mount: `make bench-nfs`. They are of a slow guest with
// one processor that runs the server and all nodes: compare them with each
// other, not with other machines.

// sharing boots a cluster whose nodes all have one directory, and waits until
// they know.
// files are made on the server's own disk before.
func (b *bed) sharing(f flavour, nodes int, flags string, files int) (*cluster, []*mount) {
	b.t.Helper()
	name := b.server.dir(fmt.Sprintf("shared-%s-%d", f.name, nodes))
	for i := range files {
		b.check(write(b.server.path(name), fmt.Sprintf("d%d/%d.xml", i%100, i), fmt.Sprintf("file %d\n", i)))
	}
	var mounts []*mount
	var trees []string
	for _, h := range b.hosts[:nodes] {
		m := h.mount(name, f)
		mounts, trees = append(mounts, m), append(trees, m.path+flags)
	}
	c := b.cluster(trees)
	for i, n := range c.nodes {
		n.tree = mounts[i].path
	}
	c.steward(60 * time.Second)
	return c, mounts
}

// steward waits until all that run agree on one.
func (c *cluster) steward(limit time.Duration) (found *node) {
	c.b.t.Helper()
	eventually(c.b.t, limit, "one steward", func() error {
		found = nil
		for _, n := range c.nodes {
			if n.daemon == nil {
				continue
			}
			s, err := n.status()
			if err != nil {
				return err
			}
			at := s.Trees[0]
			i := slices.IndexFunc(c.nodes, func(m *node) bool { return m.name == at.Steward })
			switch {
			case at.Storage != "direct" || i < 0 || c.nodes[i].daemon == nil:
				return fmt.Errorf("%s: %+v", n.name, at)
			case found != nil && found != c.nodes[i]:
				return fmt.Errorf("%s says %s, not %s", n.name, at.Steward, found.name)
			}
			found = c.nodes[i]
		}
		if found == nil {
			return errors.New("nobody runs")
		}
		return nil
	})
	return found
}

// BenchmarkPropagation: a gateway writes; until the others' daemons have
// verified the digest through their own mounts, and until a local inotify user
// there was woken (nudge).
func BenchmarkPropagation(tb *testing.B) {
	b := newBed(tb)
	for _, f := range []flavour{v4hard, v3hard} {
		tb.Run(f.name, func(tb *testing.B) {
			b.in(tb)
			c, mounts := b.sharing(f, 3, ",nudge=true", 0)
			watcher, err := fsnotify.NewWatcher()
			b.check(err)
			defer watcher.Close()
			var read, verified, nudged []time.Duration
			for i := range 20 {
				name := fmt.Sprintf("p%d.xml", i%4)
				text := sealed(fmt.Sprint("propagation ", i))
				if i == 4 { // from here on they are changes
					b.check(watcher.Add(mounts[1].path))
				}
				before := c.nodes[0].revision()
				start := time.Now()
				b.check(write(mounts[0].path, name, text))
				read = append(read, eventually(tb, 60*time.Second, "the others read it", func() error {
					return errors.Join(stands(mounts[1].path, name, text), stands(mounts[2].path, name, text))
				}))
				eventually(tb, 60*time.Second, "the others have verified it", func() error {
					for _, n := range c.nodes[1:] {
						if s, err := n.status(); err != nil || s.Trees[0].Applied <= before {
							return fmt.Errorf("%s: %+v %w", n.name, s.Trees, err)
						}
					}
					return nil
				})
				verified = append(verified, time.Since(start))
				if i < 4 {
					continue
				}
				for woken := false; !woken; {
					select {
					case ev := <-watcher.Events:
						woken = filepath.Base(ev.Name) == name
					case <-time.After(30 * time.Second):
						tb.Fatalf("no event about %s on %s", name, c.nodes[1].name)
					}
				}
				nudged = append(nudged, time.Since(start))
			}
			tb.Logf("%s: a write is read by the others after %v, verified by their daemons after %v (most %v), an inotify user there woken after %v (most %v)",
				f.name, median(read), median(verified), slices.Max(verified), median(nudged), slices.Max(nudged))
		})
	}
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2].Round(time.Millisecond)
}

// BenchmarkTakeover: the steward is killed, or loses its cable; until another
// one is named, and until it has materialized a write from elsewhere.
func BenchmarkTakeover(tb *testing.B) {
	b := newBed(tb)
	c, _ := b.sharing(v4hard, 3, "", 0)
	var killed []time.Duration
	for range 3 {
		old := c.steward(60 * time.Second)
		start := time.Now()
		old.kill()
		c.steward(60 * time.Second)
		killed = append(killed, time.Since(start))
		old.start()
		c.steward(60 * time.Second)
	}
	tb.Logf("killed: another steward after %v", killed)
}

// BenchmarkIdle: calls to the server while nothing happens, of each node, with
// three and with two nodes that have one directory.
func BenchmarkIdle(tb *testing.B) {
	files, long := size(5000, 20_000), size(time.Minute, 2*time.Minute)
	b := newBed(tb)
	for _, f := range []flavour{v4hard, v3hard} {
		tb.Run(f.name, func(tb *testing.B) {
			b.in(tb)
			start := time.Now()
			c, mounts := b.sharing(f, 3, "", files)
			c.idleAfter(files, 4*time.Minute)
			tb.Logf("%d files, made on the server, are known to all nodes after %v", files, time.Since(start).Round(time.Second))
			c.idle(mounts, long)
			c.nodes[2].term(10 * time.Second)
			c.idle(mounts[:2], long)
		})
	}
}

// idleAfter waits until all nodes know so many files and have no work left.
func (c *cluster) idleAfter(files int, limit time.Duration) {
	c.b.t.Helper()
	eventually(c.b.t, limit, "all files are known", func() error {
		for _, n := range c.nodes {
			if s, err := n.status(); err != nil || s.Trees[0].Files < files || s.Trees[0].Applied < s.Revision || s.Trees[0].Pending > 0 {
				return fmt.Errorf("%s: %+v %w", n.name, s.Trees, err)
			}
		}
		return nil
	})
}

// idle tells what the nodes ask of the server in that time, while nobody does
// anything.
func (c *cluster) idle(mounts []*mount, long time.Duration) {
	c.b.t.Helper()
	steward := c.steward(60 * time.Second)
	var before []map[string]int
	for _, m := range mounts {
		before = append(before, m.calls())
	}
	time.Sleep(long) // what is measured
	for i, m := range mounts {
		what, all := "", 0
		if c.nodes[i] == steward {
			what = " (the steward)"
		}
		calls := m.calls()
		for op, n := range calls {
			calls[op] = n - before[i][op]
			all += calls[op]
		}
		maps.DeleteFunc(calls, func(_ string, n int) bool { return n == 0 })
		c.b.t.Logf("%s, %d nodes, idle for %v: %s%s makes %.0f calls a minute: %v", m.flavour.name, len(mounts), long, c.nodes[i].name, what, float64(all)/long.Minutes(), calls)
	}
}
