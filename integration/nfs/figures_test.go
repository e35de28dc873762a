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

// BenchmarkPropagation: a gateway writes; until the others' daemons have
// verified the digest through their own mounts, and until a local inotify user
// there was woken (nudge).
func BenchmarkPropagation(tb *testing.B) {
	b := newBed(tb)
	for _, f := range []flavour{v4hard, v3hard} {
		tb.Run(f.name, func(tb *testing.B) {
			b.in(tb)
			c := b.direct(f, layout{on: 3, flags: ",nudge=true"})
			mounts := c.mounts
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
	c := b.direct(v4hard, layout{on: 3})
	var killed []time.Duration
	for range 3 {
		old, _ := c.steward()
		start := time.Now()
		old.kill()
		c.steward()
		killed = append(killed, time.Since(start))
		old.start()
		c.steward()
	}
	tb.Logf("killed: another steward after %v", killed)
}

// BenchmarkIdle: calls to the server while nothing happens, of each node, with
// three and with two nodes that have one directory.
func BenchmarkIdle(tb *testing.B) {
	files, long := size(5000, 20_000), 2*time.Minute
	b := newBed(tb)
	for _, f := range []flavour{v4hard, v3hard} {
		tb.Run(f.name, func(tb *testing.B) {
			b.in(tb)
			start := time.Now()
			d := b.direct(f, layout{on: 3, files: files})
			eventually(tb, 30*time.Minute, "all files are known", func() error {
				for _, n := range d.nodes {
					if at, err := n.place(); err != nil || at.Files < files || at.Pending > 0 {
						return fmt.Errorf("%s: %+v %w", n.name, at, err)
					}
				}
				return nil
			})
			tb.Logf("%s: %d files that stood there are committed, and all nodes have read them, after %v", f.name, files, time.Since(start).Round(time.Second))
			d.idle(long)
			d.nodes[2].term(10 * time.Second)
			d.mounts, d.nodes = d.mounts[:2], d.nodes[:2]
			d.idle(long)
		})
	}
}

// idle tells what the nodes ask of the server in that time, while nobody does
// anything.
func (d *direct) idle(long time.Duration) {
	t := d.b.t
	t.Helper()
	steward, _ := d.steward()
	// The client of NFSv4 gives back what it was delegated file by file, in the
	// minutes after the files were read: that is the kernel's, and it ends.
	returned := -1
	eventually(t, 10*time.Minute, "delegations are given back", func() error {
		was := returned
		returned = 0
		for _, m := range d.mounts {
			returned += m.calls()["DELEGRETURN"]
		}
		if returned != was {
			time.Sleep(10 * time.Second) // what is looked at is whether some more are, in that time
			return fmt.Errorf("%d, %d before", returned, was)
		}
		return nil
	})
	tell := func(what string, per float64, during func()) {
		var before []map[string]int
		for _, m := range d.mounts {
			before = append(before, m.calls())
		}
		during()
		for i, m := range d.mounts {
			who, all := d.nodes[i].name, 0
			if d.nodes[i] == steward {
				who += " (the steward)"
			}
			calls := m.calls()
			for op, n := range calls {
				calls[op] = n - before[i][op]
				all += calls[op]
			}
			maps.DeleteFunc(calls, func(_ string, n int) bool { return n == 0 })
			t.Logf("%s, %d nodes, %s: %s makes %.0f calls: %v", m.flavour.name, len(d.mounts), what, who, float64(all)/per, calls)
		}
	}
	tell(fmt.Sprintf("a minute of %v in which nothing happens", long), long.Minutes(), func() { time.Sleep(long) })
	var took time.Duration
	tell("one complete scan", 1, func() {
		begun := time.Now()
		steward.must("wait", "--timeout", "4m")
		took = time.Since(begun)
	})
	t.Logf("%s: the scan took %v; the pause before the next one is a minute, or 200 times as long", d.mounts[0].flavour.name, took.Round(time.Millisecond))
}
