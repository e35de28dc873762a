package nfs

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// fault is something that happens to mounts, and its end.
type fault struct {
	name       string
	start, end func()
	gone       bool // the tree is out of reach, or seems empty, for its gateway, too
	copied     bool // a copy stands there then: what was written there meanwhile would be held
}

// faults are those that the mounts of one directory survive, or that a person
// mends by mounting it again. What happens to one host happens to the first.
func (b *bed) faults(mounts ...*mount) []fault {
	m := mounts[0]
	remount := func(mounts ...*mount) {
		for _, m := range mounts {
			b.check(m.detach())
			m.again()
		}
	}
	empty := func() {}
	return []fault{
		{name: "ServerStopped", start: b.server.stop, end: b.server.start},
		{name: "CablePulled", start: m.host.pull, end: m.host.plug},
		{name: "UnmountedLazily", gone: true, start: func() { b.check(m.detach()) }, end: m.again},
		{name: "AnotherMountedThere", gone: true,
			start: func() {
				b.check(m.detach())
				other := &mount{host: m.host, path: m.path, name: b.server.dir(m.name + "-other"), flavour: m.flavour}
				other.again()
			},
			end: func() { remount(m) }},
		{name: "ReadOnly", start: func() { b.server.export(readOnly) }, end: func() { b.server.export(writable) }},
		{name: "Full", start: func() { empty = b.server.fill() }, end: func() { empty() }},
		{name: "NotExported", gone: true, start: b.server.unexport, end: func() { b.server.export(writable) }},
		{name: "Stale", gone: true, copied: true, start: func() { b.server.replace(m.name) }, end: func() { remount(mounts...) }},
		{name: "PowerCut", start: b.server.powerOff, end: b.server.powerOn},
	}
}

// A tree on a mount of its own, which only this node uses: whatever becomes of
// the mount, the others go on and see no deletion, the daemon answers and ends,
// and all is equal when the mount is well again.
func TestPromise_NoSurpriseDelete_OwnMountGoesV4(t *testing.T) {
	ownMountGoes(t, v4hard, "")
}
func TestPromise_NoSurpriseDelete_OwnMountGoesV3(t *testing.T) {
	ownMountGoes(t, v3soft, size("ServerStopped NotExported PowerCut", ""))
}

func ownMountGoes(t *testing.T, f flavour, faults string) {
	b := newBed(t)
	m := b.hosts[0].mount(b.server.dir("own"), f)
	c := b.cluster([]string{m.path, "", ""})
	c.mountsGo(t, faults, c.nodes[1], c.nodes[2], m)
	if t.Failed() {
		return // what the daemons say now is shown
	}
	for _, n := range c.nodes {
		t.Logf("%s ended %v after SIGTERM", n.name, n.term(5*time.Second))
	}
}

// mountsGo lets everything happen to mounts of one directory, on which the
// first nodes have their trees, while gateways write and read on all nodes.
// Two further nodes have local trees: to them nothing happens. only names the
// faults, "" is all of them.
func (c *cluster) mountsGo(outer *testing.T, only string, two, three *node, mounts ...*mount) {
	b, n, on := c.b, c.nodes[0], c.nodes[:len(mounts)]
	for i := range 60 {
		b.check(write(two.tree, fmt.Sprintf("kept/d%d/%d.xml", i%5, i), sealed("kept")))
	}
	c.waitEqual(60 * time.Second)
	// Connections and their streams are opened when they are first needed.
	before := n.goroutines()
	most := before + 40
	load := c.startLoad()
	defer load.end()
	for _, fault := range b.faults(mounts...) {
		if only != "" && !slices.Contains(strings.Fields(only), fault.name) {
			continue
		}
		outer.Run(fault.name, func(t *testing.T) {
			b.in(t)
			since := two.revision()
			var watching []*watch
			for _, n := range on {
				load.mayMiss(n, fault.gone)
				watching = append(watching, n.watch())
			}
			if fault.copied {
				// What a gateway has just written and nobody has captured is, in a copy, what
				// nobody knows: it would go aside. So is a name that others have just moved
				// away: it would be held.
				load.rest(true, c.nodes...)
				for _, n := range on {
					n.must("wait", "--timeout", "60s")
				}
				c.waitEqual(60 * time.Second)
				c.content(60 * time.Second)
			}
			fault.start()
			if fault.copied {
				load.rest(false, two, three)
			}
			begun, slowest := time.Now(), time.Duration(0)
			for i := range 6 {
				from, to := two, three
				if i%2 == 1 {
					from, to = three, two
				}
				slowest = max(slowest, c.passes(10*time.Second, from, fmt.Sprintf("pass/%s-%d", fault.name, i), sealed("pass"), to))
				time.Sleep(500 * time.Millisecond) // as long as an outage lasts
			}
			lasted, during := time.Since(begun), n.goroutines()
			fault.end()
			ended := time.Now()
			if fault.copied {
				c.oneDirectory(20*time.Second, on...)
				t.Logf("the nodes agree on where it lies %v after it was mounted", time.Since(ended).Round(time.Millisecond))
				// What a gateway writes before its node has looked at the copy goes aside, too.
				for _, n := range on {
					n.must("resync")
				}
				t.Logf("they know what stands there %v after it was mounted", time.Since(ended).Round(time.Millisecond))
				load.rest(false, on...)
			}
			after := 0
			// What a gateway did while its node found its root again nobody witnessed: it
			// is found by the steward's next scan, which on a slow guest may be minutes off.
			load.check(3*time.Minute, func() {
				c.allSeen(60 * time.Second) // else connections are still to be made
				after = eventuallyFew(n, most)
			})
			most = min(most, after+20) // from now on nothing may grow
			t.Logf("for %v; beside it writes passed within %v; equal and content %v after its end", lasted.Round(time.Millisecond), slowest.Round(time.Millisecond), time.Since(ended).Round(time.Millisecond))
			for i, n := range on {
				load.mayMiss(n, false)
				watching[i].end()
			}
			c.noDeletions(since)
			t.Logf("goroutines: %d before all, %d at the end of the fault, %d after", before, during, after)
		})
		if outer.Failed() {
			return // what is left of it would be blamed on the next
		}
	}
}

// allSeen waits until each node hears from all others.
func (c *cluster) allSeen(limit time.Duration) {
	c.b.t.Helper()
	c.allSay(limit, "all hear from each other", func(s status) error {
		for _, m := range s.Members {
			if !m.Alive {
				return fmt.Errorf("does not hear from %s", m.Name)
			}
		}
		return nil
	})
}

// content waits until no node holds anything back or keeps a conflict (where
// each path has one writer there is none), and all have their trees.
func (c *cluster) content(limit time.Duration) {
	c.b.t.Helper()
	c.allSay(limit, "all nodes are content", func(s status) error {
		for _, tree := range s.Trees {
			if tree.Held+tree.Conflicts+tree.Failing+tree.Busy+tree.Unsent > 0 || tree.Root != "" {
				return fmt.Errorf("%+v", tree)
			}
		}
		return nil
	})
}

// oneDirectory waits until nodes have their trees, and agree that it is one
// directory, where they are several.
func (c *cluster) oneDirectory(limit time.Duration, nodes ...*node) {
	c.b.t.Helper()
	storage := "local"
	if len(nodes) > 1 {
		storage = "direct"
	}
	eventually(c.b.t, limit, "the trees are back, storage: "+storage, func() error {
		mount := ""
		for i, n := range nodes {
			s, err := n.status()
			if err == nil && i == 0 {
				mount = s.Trees[0].Mount
			}
			if err == nil && (s.Trees[0].Mount != mount || (mount != "") != (s.Trees[0].Steward != "") || s.Trees[0].Storage != storage || s.Trees[0].Root != "" || s.Trees[0].Held+s.Trees[0].Conflicts > 0) {
				err = fmt.Errorf("%s: %+v", n.name, s.Trees[0])
			}
			if err != nil {
				return err
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
