package nfs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// gateway reads and writes in one directory, until it is taken out of the load
// balancer and pointed to another: what docs/migration.md does with it.
type gateway struct {
	name    string
	root    string
	written int
	stop    chan struct{}
	ended   chan error
}

// serve goes on in root: each moment a new file, and a look at one that stands
// there always.
func (g *gateway) serve(root string) {
	g.root, g.stop, g.ended = root, make(chan struct{}), make(chan error, 1)
	go func() { g.ended <- g.run() }()
}

func (g *gateway) run() error {
	for {
		select {
		case <-g.stop:
			return nil
		case <-time.After(200 * time.Millisecond):
		}
		if err := write(g.root, fmt.Sprintf("by-%s/%04d.xml", g.name, g.written), fmt.Sprintf("%s wrote %d\n", g.name, g.written)); err != nil {
			return err
		}
		g.written++
		if err := stands(g.root, "always.xml", "always\n"); err != nil {
			return err
		}
	}
}

// drain takes it out of the load balancer.
func (g *gateway) drain(b *bed) {
	b.t.Helper()
	close(g.stop)
	if err := <-g.ended; err != nil {
		b.t.Errorf("%s in %s: %v", g.name, g.root, err)
	}
}

// edit changes the settings of a node that is stopped.
func (n *node) edit(change func([]byte) []byte) {
	n.host.b.t.Helper()
	file := filepath.Join(n.data, "gatesync.yaml")
	text, err := os.ReadFile(file)
	n.host.b.check(err)
	n.host.b.check(os.WriteFile(file, change(text), 0o600))
}

// point gives a node's tree another directory, in its settings.
func (n *node) point(root string) {
	n.host.b.t.Helper()
	n.must("wait", "--timeout", "3m") // for what other gateways write meanwhile, too
	n.term(10 * time.Second)
	n.host.b.check(os.MkdirAll(root, 0o755))
	n.edit(func(text []byte) []byte {
		return bytes.Replace(text, []byte("path: "+n.tree), []byte("path: "+root), 1)
	})
	n.tree = root
	n.start()
}

// move gives a node's tree another, empty directory, as docs/migration.md says.
func (n *node) move(root string) {
	n.host.b.t.Helper()
	n.point(root)
	eventually(n.host.b.t, 60*time.Second, "the new root waits for a word", func() error {
		if a := n.ask("held"); a.code != 0 || !bytes.Contains([]byte(a.stdout), []byte("no marker")) {
			return fmt.Errorf("held: %+v", a)
		}
		return nil
	})
	n.must("restore", "--tree", "server")
	n.must("wait", "--timeout", "3m")
}

// From a shared mount to local trees, gateway by gateway, and back, while the
// gateways write: docs/migration.md, step by step.
func TestPromise_NoLoss_MigrationFromNFSAndBack(t *testing.T) {
	b := newBed(t)
	for _, f := range []flavour{v4hard, v3hard} {
		t.Run(f.name, func(t *testing.T) { b.in(t); migrate(b, f) })
	}
}

func migrate(b *bed, f flavour) {
	t, name := b.t, b.server.dir(f.name)
	var mounts []*mount
	var gateways []*gateway
	for _, h := range b.hosts {
		mounts = append(mounts, h.mount(name, f))
	}
	old := func(i int) string { return filepath.Join(mounts[i].path, "server") }
	b.check(write(old(0), "always.xml", "always\n"))
	eventually(t, 60*time.Second, "all see the share", func() error { return stands(old(2), "always.xml", "always\n") })
	for i, h := range b.hosts {
		gateways = append(gateways, &gateway{name: h.name})
		gateways[i].serve(old(i))
	}

	// 1, 2: a bridge, and a local tree beside each of the others.
	c := b.cluster([]string{old(0), "", ""})
	bridge := c.nodes[0]
	bridge.term(10 * time.Second)
	bridge.edit(func(text []byte) []byte { return append(text, "scan_interval: 2s\n"...) })
	bridge.start()
	bridge.must("wait", "--timeout", "3m")

	// 3: the others move.
	for i := 1; i < 3; i++ {
		gateways[i].drain(b)
		bridge.must("wait", "--timeout", "3m")
		gateways[i].serve(c.nodes[i].tree)
	}
	// 4: the bridge goes last.
	gateways[0].drain(b)
	local := filepath.Join(filepath.Dir(bridge.data), "server")
	bridge.move(local)
	gateways[0].serve(local)
	// 5: the file server goes.
	for _, m := range mounts {
		b.check(m.detach())
	}
	b.server.stop()
	for i := range mounts {
		c.passes(60*time.Second, c.nodes[i], fmt.Sprintf("local-%d.xml", i), "without a file server\n", c.nodes...)
	}

	// And back.
	b.server.start()
	for _, m := range mounts {
		m.again()
	}
	fresh := func(i int) string { return filepath.Join(mounts[i].path, "server-new") }
	gateways[0].drain(b)
	bridge.move(fresh(0))
	gateways[0].serve(fresh(0))
	for i := 1; i < 3; i++ {
		gateways[i].drain(b)
		c.nodes[i].must("wait", "--timeout", "3m")
		gateways[i].serve(fresh(i))
	}
	c.migrated(f.name, bridge, gateways)
}

// migrated stops the gateways: everything that they wrote has to stand in all
// trees, and nothing may have gone aside.
func (c *cluster) migrated(way string, last *node, gateways []*gateway) {
	b, t := c.b, c.b.t
	t.Helper()
	for _, g := range gateways {
		g.drain(b)
	}
	last.must("wait", "--timeout", "3m")
	c.waitEqual(60 * time.Second)
	for _, n := range c.nodes {
		for _, g := range gateways {
			for i := range g.written {
				if err := stands(n.tree, fmt.Sprintf("by-%s/%04d.xml", g.name, i), fmt.Sprintf("%s wrote %d\n", g.name, i)); err != nil {
					t.Errorf("%s: %v", n.name, err)
				}
			}
		}
		if a := n.ask("conflicts", "--json"); a.stdout != "[]\n" {
			t.Errorf("%s: conflicts: %s", n.name, a.stdout)
		}
	}
	for _, g := range gateways {
		t.Logf("%s: %s wrote %d files", way, g.name, g.written)
	}
}

// From one directory that all nodes have on a mount to local trees, node by node,
// and back into another directory of the mount, while the gateways write.
func TestPromise_NoLoss_MigrationFromDirectAndBack(t *testing.T) {
	b := newBed(t)
	for _, f := range []flavour{v4hard, v3hard} {
		t.Run(f.name, func(t *testing.T) { b.in(t); migrateDirect(b, f) })
	}
}

func migrateDirect(b *bed, f flavour) {
	t := b.t
	d := b.direct(f, layout{on: 3})
	b.check(write(d.nodes[0].tree, "always.xml", "always\n"))
	d.nodes[0].must("wait", "--timeout", "3m")
	var gateways []*gateway
	for i, n := range d.nodes {
		eventually(t, 60*time.Second, "all see the share", func() error { return stands(n.tree, "always.xml", "always\n") })
		gateways = append(gateways, &gateway{name: n.name})
		gateways[i].serve(n.tree)
	}
	move := func(i int, root string, move func(string)) {
		n, begun := d.nodes[i], time.Now()
		gateways[i].drain(b)
		move(root)
		gateways[i].serve(root)
		t.Logf("%s: %s moved to %s in %v", f.name, n.name, root, time.Since(begun).Round(time.Millisecond))
	}
	// Each to its own disk: the steward among them, whoever it is.
	for i, n := range d.nodes {
		move(i, filepath.Join(filepath.Dir(n.data), "server"), n.move)
	}
	d.localAll()
	for _, m := range d.mounts {
		b.check(m.detach())
	}
	b.server.stop()
	for i, n := range d.nodes {
		d.passes(60*time.Second, n, fmt.Sprintf("local-%d.xml", i), "without a file server\n", d.nodes...)
	}
	b.server.start()

	// And back: the first into an empty directory, the others into what stands there.
	for i, m := range d.mounts {
		m.again()
		root := filepath.Join(m.path, "server-new")
		if i == 0 {
			move(i, root, d.nodes[i].move)
		} else {
			move(i, root, d.nodes[i].point)
		}
	}
	d.steward()
	d.migrated(f.name, d.nodes[1], gateways)
}

// localAll waits until every node knows that its tree is its own.
func (d *direct) localAll() {
	d.b.t.Helper()
	eventually(d.b.t, 30*time.Second, "all trees are local", func() error {
		for _, n := range d.nodes {
			if at, err := n.place(); err != nil || at.Storage != "local" {
				return fmt.Errorf("%s: %+v %w", n.name, at, err)
			}
		}
		return nil
	})
}
