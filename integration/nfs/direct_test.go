package nfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// direct is a cluster whose first nodes have one directory on mounts of their own,
// and whose others have local trees.
type direct struct {
	*cluster
	mounts []*mount
	name   string // of the directory on the server
}

// layout is how a direct cluster is laid out.
type layout struct {
	on, local int    // nodes
	files     int    // that stand in the directory before there are nodes
	flags     string // of the tree on the mount, ",nudge=true"
}

func (b *bed) direct(f flavour, l layout) *direct {
	b.t.Helper()
	d := &direct{name: b.server.dir(fmt.Sprintf("direct-%s-%d", f.name, l.on))}
	for i := range l.files {
		b.check(write(b.server.path(d.name), fmt.Sprintf("d%d/%d.xml", i%100, i), fmt.Sprintf("file %d\n", i)))
	}
	var trees []string
	for _, h := range b.hosts[:l.on] {
		m := h.mount(d.name, f)
		d.mounts, trees = append(d.mounts, m), append(trees, m.path+l.flags)
	}
	d.cluster = b.cluster(append(trees, make([]string, l.local)...))
	b.t.Logf("one directory: known after %v", eventually(b.t, 5*time.Minute, "they find that they have one directory", func() error {
		_, err := d.stewardIs()
		return err
	}))
	return d
}

func (n *node) place() (treeStatus, error) {
	s, err := n.status()
	if err == nil && len(s.Trees) != 1 {
		err = fmt.Errorf("%s has %d trees", n.name, len(s.Trees))
	}
	if err != nil {
		return treeStatus{}, err
	}
	return s.Trees[0], nil
}

// stewardIs tells who is the steward, once those on the mount that run agree.
func (d *direct) stewardIs() (*node, error) {
	on := d.nodes[:len(d.mounts)]
	name := ""
	for _, n := range on {
		if n.daemon == nil {
			continue
		}
		at, err := n.place()
		switch {
		case err != nil:
			return nil, err
		case at.Storage != "direct" || at.Steward == "":
			return nil, fmt.Errorf("%s is %q with the steward %q (%s)", n.name, at.Storage, at.Steward, at.StorageWhy)
		case name != "" && at.Steward != name:
			return nil, fmt.Errorf("%s says %s, not %s", n.name, at.Steward, name)
		}
		name = at.Steward
	}
	i := slices.IndexFunc(on, func(n *node) bool { return n.name == name })
	if i < 0 || on[i].daemon == nil {
		return nil, fmt.Errorf("%q is on no mount, or does not run", name)
	}
	return on[i], nil
}

// steward waits for one, and names another one that has the directory too.
func (d *direct) steward() (now, other *node) {
	d.b.t.Helper()
	eventually(d.b.t, 60*time.Second, "a steward", func() (err error) { now, err = d.stewardIs(); return err })
	if now == d.nodes[0] {
		return now, d.nodes[1]
	}
	return now, d.nodes[0]
}

// takesOver waits until a node says that it is the steward.
func (d *direct) takesOver(next *node) time.Duration {
	d.b.t.Helper()
	return eventually(d.b.t, 60*time.Second, next.name+" is the next steward", func() error {
		at, err := next.place()
		if err == nil && at.Steward != next.name {
			err = fmt.Errorf("it is %q", at.Steward)
		}
		return err
	})
}

// follow waits until all that run have applied a revision, verified through
// their own mounts.
func (d *direct) follow(rev uint64, limit time.Duration) time.Duration {
	d.b.t.Helper()
	return eventually(d.b.t, limit, fmt.Sprintf("revision %d is applied", rev), func() error {
		for _, n := range d.nodes {
			if n.daemon == nil {
				continue
			}
			at, err := n.place()
			if err != nil {
				return err
			}
			if at.Applied < rev {
				return fmt.Errorf("%s has applied %d (%d pending)", n.name, at.Applied, at.Pending)
			}
		}
		return nil
	})
}

// onServer is what the server itself has of a file.
func (d *direct) onServer(path string) (os.FileInfo, error) {
	return os.Stat(d.b.server.path(d.name, path))
}

// One write by any gateway is one revision; what comes from elsewhere is
// written once, by the steward.
func TestPromise_Order_OneDirectoryOnNFS(t *testing.T) {
	b := newBed(t)
	for _, f := range []flavour{v4hard, v3hard} {
		t.Run(f.name, func(t *testing.T) {
			b.in(t)
			d := b.direct(f, layout{on: 2, local: 1})
			eventually(t, 60*time.Second, "the third node's tree is its own", func() error {
				at, err := d.nodes[2].place()
				if err == nil && at.Storage != "local" {
					err = fmt.Errorf("it is %q", at.Storage)
				}
				return err
			})
			for i, n := range d.nodes {
				before := d.leader().revision()
				path, text := "f-"+n.name, "written on "+n.name+"\n"
				took := d.passes(60*time.Second, n, path, text, d.others(n)...)
				all := d.follow(before+1, 30*time.Second)
				t.Logf("%s → read by the others %v, verified by all %v later", n.name, took, all)
				if i == 2 {
					first, err := d.onServer(path)
					b.check(err)
					d.quiet(3*time.Second, before+1)
					if again, err := d.onServer(path); err != nil || !os.SameFile(first, again) || !first.ModTime().Equal(again.ModTime()) {
						t.Errorf("what came from elsewhere was written more than once: %v, then %v, %v", first, again, err)
					}
					continue
				}
				d.quiet(3*time.Second, before+1)
				// Rewritten with the same size, over the other's mount.
				b.check(write(d.others(n)[0].tree, path, "WRITTEN ON "+n.name+"\n"))
				d.follow(before+2, 30*time.Second)
				d.quiet(2*time.Second, before+2)
			}
			before := d.leader().revision()
			b.check(os.Remove(filepath.Join(d.nodes[1].tree, "f-"+d.nodes[0].name)))
			d.follow(before+1, 60*time.Second)
			d.quiet(2*time.Second, before+1)
			d.waitEqual(30 * time.Second)

			d.sameInstant()
		})
	}
}

// quiet sees to it that no further revision comes. (One that has just begun to lead
// may not have read of the last one yet.)
func (d *direct) quiet(long time.Duration, rev uint64) {
	d.b.t.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if now := d.leader().revision(); now > rev {
			d.b.t.Fatalf("revision %d where %d was due:\n%s", now, rev, d.nodes[2].must("log"))
		}
	}
}

// sameInstant has both gateways write one file at the same moment, again and
// again: whichever stands in the end, stands everywhere.
func (d *direct) sameInstant() {
	t := d.b.t
	t.Helper()
	for round := range 5 {
		var both sync.WaitGroup
		for i, n := range d.nodes[:2] {
			both.Go(func() {
				if err := write(n.tree, "contended", fmt.Sprintf("round %d by %d\n", round, i)); err != nil && !errors.Is(err, syscall.ESTALE) {
					t.Error(err)
				}
			})
		}
		both.Wait()
		time.Sleep(300 * time.Millisecond) // between the rounds, for the gateways
	}
	eventually(t, 60*time.Second, "the contended file is one everywhere", func() error {
		want, err := os.ReadFile(d.b.server.path(d.name, "contended"))
		if err != nil {
			return err
		}
		for _, n := range d.nodes {
			if err := stands(n.tree, "contended", string(want)); err != nil {
				return err
			}
		}
		return nil
	})
	kept := 0
	for _, n := range d.nodes {
		if at, err := n.place(); err == nil {
			kept += at.Conflicts
		}
	}
	t.Logf("one file, two gateways, 5 rounds: %d contents kept aside\n%s", kept, d.nodes[2].must("log"))
}

// A steward that is killed, stopped and woken, or cut off, is replaced within
// seconds, and what it does late does no harm.
func TestPromise_Converge_StewardsOnNFS(t *testing.T) {
	b := newBed(t)
	for _, f := range []flavour{v4hard, v3hard} {
		t.Run(f.name, func(t *testing.T) {
			b.in(t)
			d := b.direct(f, layout{on: 2, local: 1})
			third := d.nodes[2]
			if !t.Run("killed", func(t *testing.T) {
				b.in(t)
				old, next := d.steward()
				old.kill()
				t.Logf("takeover after a kill: %v", d.takesOver(next))
				d.passes(30*time.Second, third, "after-kill", "one\n", next)
				old.start()
				d.passes(30*time.Second, third, "after-return", "two\n", d.nodes[:2]...)
				d.waitEqual(30 * time.Second)
			}) {
				return
			}
			if !t.Run("stopped and woken", func(t *testing.T) {
				b.in(t)
				old, next := d.steward()
				// In the middle of its work, as far as that can be met.
				for i := range 40 {
					b.check(write(third.tree, fmt.Sprintf("many/%d", i), fmt.Sprintf("first %d\n", i)))
				}
				eventually(t, 30*time.Second, "the steward has begun", func() error {
					_, err := d.onServer("many")
					return err
				})
				old.signal(syscall.SIGSTOP)
				t.Logf("takeover after a stop: %v", d.takesOver(next))
				for i := range 40 {
					b.check(write(third.tree, fmt.Sprintf("many/%d", i), fmt.Sprintf("second %d\n", i)))
				}
				eventually(t, 60*time.Second, "the next one has written", func() error {
					for i := range 40 {
						if err := stands(d.b.server.path(d.name), fmt.Sprintf("many/%d", i), fmt.Sprintf("second %d\n", i)); err != nil {
							return err
						}
					}
					return nil
				})
				old.signal(syscall.SIGCONT)
				time.Sleep(3 * time.Second) // for it to do what it had begun
				d.follow(d.leader().revision(), 60*time.Second)
				want := d.waitEqual(60 * time.Second)
				for i := range 40 {
					if err := stands(third.tree, fmt.Sprintf("many/%d", i), fmt.Sprintf("second %d\n", i)); err != nil {
						t.Fatalf("%v (%d files)", err, len(want))
					}
				}
			}) {
				return
			}
			t.Run("cut off", func(t *testing.T) {
				b.in(t)
				old, next := d.steward()
				old.host.pull()
				t.Logf("takeover after a cut: %v", d.takesOver(next))
				d.passes(30*time.Second, third, "while-cut", "three\n", next)
				old.host.plug()
				d.follow(d.leader().revision(), 90*time.Second)
				d.waitEqual(60 * time.Second)
			})
		})
	}
}
