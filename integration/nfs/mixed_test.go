package nfs

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// Two nodes have one directory on a mount, two have local trees: one cluster.
// Whatever becomes of the mount, those with local trees notice nothing, nothing
// is proposed as a deletion, and all is equal when the mount is well again. When
// the file server is gone for good, each node still has everything.
func TestPromise_NoSurpriseDelete_SharedMountGoesV4(t *testing.T) {
	full := "Stale ServerStopped CablePulled UnmountedLazily AnotherMountedThere ReadOnly Full NotExported PowerCut"
	sharedMountGoes(t, v4hard, size("Stale CablePulled UnmountedLazily", full))
}
func TestPromise_NoSurpriseDelete_SharedMountGoesV4Soft(t *testing.T) {
	sharedMountGoes(t, v4soft, size("ServerStopped NotExported", "ServerStopped CablePulled ReadOnly Full NotExported PowerCut"))
}
func TestPromise_NoSurpriseDelete_SharedMountGoesV3(t *testing.T) {
	sharedMountGoes(t, v3soft, size("PowerCut", "ServerStopped CablePulled NotExported PowerCut"))
}

func sharedMountGoes(t *testing.T, f flavour, faults string) {
	b := newBed(t)
	b.addHost()
	d := b.direct(f, layout{on: 2, local: 2})
	c, one, other := d.cluster, d.mounts[0], d.mounts[1]
	c.mountsGo(t, faults, c.nodes[2], c.nodes[3], one, other)
	if t.Failed() {
		return
	}

	c.waitEqual(3 * time.Minute) // nobody writes any more: nothing is on its way from the nodes on the mount
	b.server.powerOff()
	last := sealed("written when the file server was gone for good")
	c.passes(10*time.Second, c.nodes[2], "last.xml", last, c.nodes[3])
	var want snapshot
	// What a gateway did last, as a name that it moved away, is on its way still.
	eventually(t, 30*time.Second, "the local trees are equal", func() error {
		author, err := readTree(c.nodes[2].tree)
		if err != nil {
			return err
		}
		if want, err = readTree(c.nodes[3].tree); err != nil {
			return err
		}
		return author.Differs(want)
	})
	for _, n := range c.nodes[:2] {
		copied := filepath.Join(filepath.Dir(n.data), "copy")
		eventually(t, 20*time.Second, n.name+" knows the newest revision", func() error {
			s, err := n.status()
			if err == nil && s.Revision < c.nodes[2].revision() {
				err = fmt.Errorf("revision %d", s.Revision)
			}
			return err
		})
		start := time.Now()
		n.must("materialize", "--tree", "server", "--to", copied)
		took := time.Since(start)
		got, err := readTree(copied)
		b.check(err)
		if err := want.Differs(got); err != nil {
			t.Errorf("the copy that %s made: %v", n.name, err)
		}
		t.Logf("%s: a copy of %d entries %v after it was asked for", n.name, len(got), took.Round(time.Millisecond))
	}
	// A process that ends while the kernel still has pages of it to write to a server
	// that is gone ends when that is back, SIGKILL or not (docs/guarantees.md): how a
	// daemon ends beside a mount that hangs is HungMount's to show.
	b.server.powerOn()
	for _, n := range c.nodes {
		t.Logf("%s ended %v after SIGTERM", n.name, n.term(30*time.Second))
	}
}
