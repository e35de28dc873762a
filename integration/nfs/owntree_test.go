package nfs

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// fault is something that happens to a mount, and its end.
type fault struct {
	name       string
	start, end func()
	says       string // what status of the node tells meanwhile, "" where it need not notice
	gone       bool   // the tree is out of reach, or seems empty, for its gateway, too
}

// faults are those that a mount survives, or that a person mends by mounting
// it again.
func (b *bed) faults(m *mount) []fault {
	remount := func() { b.check(m.detach()); m.again() }
	empty := func() {}
	var other *mount
	return []fault{
		{name: "ServerStopped", start: b.server.stop, end: b.server.start},
		{name: "CablePulled", start: m.host.pull, end: m.host.plug},
		{name: "UnmountedLazily", gone: true, says: "marker", start: func() { b.check(m.detach()) }, end: m.again},
		{name: "AnotherMountedThere", gone: true, says: "marker",
			start: func() {
				b.check(m.detach())
				other = &mount{host: m.host, path: m.path, name: b.server.dir(m.name + "-other"), flavour: m.flavour}
				other.again()
			},
			end: remount},
		{name: "ReadOnly", start: func() { b.server.export(readOnly) }, end: func() { b.server.export(writable) }},
		{name: "Full", start: func() { empty = b.server.fill() }, end: func() { empty() }},
		{name: "NotExported", gone: true, start: b.server.unexport, end: func() { b.server.export(writable) }},
		{name: "Stale", gone: true, start: func() { b.server.replace(m.name) }, end: remount},
		{name: "PowerCut", start: b.server.powerOff, end: b.server.powerOn},
	}
}

// A tree on a mount of its own, which only this node uses: whatever becomes of
// the mount, the others go on and see no deletion, the daemon answers and ends,
// and all is equal when the mount is well again.
func TestPromise_NoSurpriseDelete_OwnMountGoesV4(t *testing.T) { ownMountGoes(t, v4hard) }
func TestPromise_NoSurpriseDelete_OwnMountGoesV3(t *testing.T) { ownMountGoes(t, v3soft) }

func ownMountGoes(t *testing.T, f flavour) {
	b := newBed(t)
	m := b.hosts[0].mount(b.server.dir("own"), f)
	c := b.cluster([]string{m.path, "", ""})
	n, two, three := c.nodes[0], c.nodes[1], c.nodes[2]
	for i := range 60 {
		b.check(write(two.tree, fmt.Sprintf("kept/d%d/%d.xml", i%5, i), sealed("kept")))
	}
	c.waitEqual(60 * time.Second)
	load := c.startLoad()
	for _, fault := range b.faults(m) {
		t.Run(fault.name, func(t *testing.T) {
			b.in(t)
			since, before := two.revision(), n.goroutines()
			watching := n.watch()
			load.mayMiss(n, fault.gone)
			fault.start()
			slowest := time.Duration(0)
			for i := range 6 {
				took := c.passes(10*time.Second, c.nodes[1+i%2], fmt.Sprintf("pass/%s-%d", fault.name, i), sealed("pass"), two, three)
				slowest = max(slowest, took)
				time.Sleep(500 * time.Millisecond) // as long as an outage lasts
			}
			t.Logf("writes passed beside it within %v", slowest.Round(time.Millisecond))
			during := n.goroutines()
			fault.end()
			ended := time.Now()
			load.check(90 * time.Second)
			t.Logf("equal %v after its end", time.Since(ended).Round(time.Millisecond))
			load.mayMiss(n, false)
			watching.end()
			c.noDeletions(since)
			after := eventuallyFew(n, before+10)
			t.Logf("goroutines: %d before, %d at the end of the fault, %d after", before, during, after)
			c.content(30 * time.Second)
		})
		if t.Failed() {
			break // what is left of it would be blamed on the next
		}
	}
	for _, n := range c.nodes {
		t.Logf("%s ended %v after SIGTERM", n.name, n.term(5*time.Second))
	}
}

// content waits until no node holds anything back or keeps a conflict (where
// each path has one writer there is none), and all have their trees.
func (c *cluster) content(limit time.Duration) {
	c.b.t.Helper()
	eventually(c.b.t, limit, "all nodes are content", func() error {
		for _, n := range c.nodes {
			s, err := n.status()
			if err != nil {
				return err
			}
			for _, tree := range s.Trees {
				if tree.Held+tree.Conflicts+tree.Failing+tree.Busy+tree.Unsent > 0 || tree.Root != "" {
					return fmt.Errorf("%s: %+v", n.name, tree)
				}
			}
		}
		return nil
	})
}

// eventuallyFew waits until a daemon has no more goroutines than so many.
func eventuallyFew(n *node, most int) (count int) {
	n.host.b.t.Helper()
	eventually(n.host.b.t, 30*time.Second, fmt.Sprintf("%s has at most %d goroutines", n.name, most), func() error {
		if count = n.goroutines(); count > most {
			return fmt.Errorf("%d", count)
		}
		return nil
	})
	return count
}

// noDeletions makes sure that nobody has proposed a deletion since a revision.
// A temporary name that a gateway wrote to when its mount went may be one.
func (c *cluster) noDeletions(since uint64) {
	t := c.b.t
	t.Helper()
	var commits []struct {
		Revision uint64
		Name     string
		Changes  []struct{ Path, What string }
	}
	out := c.nodes[1].must("log", "--json", "--paths", "--limit", "5000")
	c.b.check(json.Unmarshal([]byte(out), &commits))
	for _, r := range commits {
		for _, ch := range r.Changes {
			if r.Revision > since && ch.What == "delete" && !strings.HasSuffix(ch.Path, ".tmp") {
				t.Errorf("revision %d of %s deletes %s", r.Revision, r.Name, ch.Path)
			}
		}
	}
}
