package integration

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/gatesync/gatesync/integration/gen"
)

// What takes most of a tree away is held on that node: nobody else loses a
// file, and `restore` puts the tree back.
func TestPromise_NoSurpriseDelete_Tree200(t *testing.T) {
	t.Parallel()
	c, want := guarded(t, 200)
	t.Run("AtOnce", func(t *testing.T) {
		surprise(t, c, want, func(root string) {
			for _, name := range top(t, root)[1:] {
				remove(t, root, name)
			}
		})
	})
	t.Run("Slowly", func(t *testing.T) {
		surprise(t, c, want, func(root string) {
			files := filesOf(want)
			for _, path := range files[:len(files)*8/10] {
				remove(t, root, path)
				if err := sleep(t.Context(), 20*time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
	t.Run("EmptiedRoot", func(t *testing.T) {
		surprise(t, c, want, func(root string) { remove(t, root, top(t, root)...) })
	})
	t.Run("RootReplaced", func(t *testing.T) {
		surprise(t, c, want, func(root string) {
			if err := os.Rename(root, root+".old"); err != nil {
				t.Fatal(err)
			}
			write(t, root, "lost+found/note", "another file system\n")
			t.Cleanup(func() { remove(t, root+".old", "") })
		})
	})
	t.Run("EmptiedWhileDown", func(t *testing.T) {
		n := c.nodes[2]
		surprise(t, c, want, func(root string) {
			n.kill()
			remove(t, root, top(t, root)...)
			n.start()
		})
	})
}

// A tree of a few files is guarded as a large one is.
func TestPromise_NoSurpriseDelete_Tree15(t *testing.T) {
	t.Parallel()
	c, want := guarded(t, 15)
	t.Run("EmptiedRoot", func(t *testing.T) {
		surprise(t, c, want, func(root string) { remove(t, root, top(t, root)...) })
	})
	t.Run("EmptiedWithMarker", func(t *testing.T) {
		surprise(t, c, want, func(root string) { remove(t, root, append(top(t, root), ".gatesync")...) })
	})
}

// What an operator approves is a deletion after all, and a few deletions
// never ask.
func TestPromise_NoSurpriseDelete_Approve(t *testing.T) {
	t.Parallel()
	c, want := guarded(t, 100)
	n := c.nodes[1]
	files := filesOf(want)
	remove(t, n.tree, files[:10]...)
	for _, p := range files[:10] {
		delete(want, p)
	}
	eventually(t, 30*time.Second, "a few deletions reach the others", func() error {
		got, err := c.reader.read(c.nodes[0].tree)
		if err != nil {
			return err
		}
		return want.Differs(got)
	})
	remove(t, n.tree, files[10:90]...)
	eventually(t, 30*time.Second, "all eighty are held", func() error {
		if got := n.held(); got < 80 { // and the directories that are left empty
			return fmt.Errorf("held: %d", got)
		}
		return nil
	})
	c.waitTree(time.Second, want, c.except(n)...)
	n.must("approve")
	for _, p := range files[10:90] {
		delete(want, p)
	}
	c.waitTree(30*time.Second, want)
	if left := n.held(); left != 0 {
		t.Errorf("%d are held after approve", left)
	}
}

// guarded boots three nodes that hold one generated tree.
func guarded(t *testing.T, files int) (*cluster, snapshot) {
	t.Helper()
	c := newCluster(t, 3)
	if _, _, err := gen.WriteTo(c.nodes[0].tree, gen.Tree(gen.Params{Seed: 8, Configs: files})); err != nil {
		t.Fatal(err)
	}
	return c, c.waitEqual(time.Minute)
}

// A root that is gone is held; when it is back (a mount) all goes on by itself.
func TestPromise_NoSurpriseDelete_RootGoneForAWhile(t *testing.T) {
	t.Parallel()
	c, want := guarded(t, 100)
	n := c.nodes[2]
	if err := os.Rename(n.tree, n.tree+".away"); err != nil {
		t.Fatal(err)
	}
	n.waitHeld(30 * time.Second)
	write(t, c.nodes[0].tree, "meanwhile.xml", "written meanwhile\n")
	want["meanwhile.xml"] = c.read(c.nodes[0])["meanwhile.xml"]
	c.waitTree(30*time.Second, want, c.nodes[:2]...)
	lookOn(t, c, want, c.nodes[:2])
	if err := os.Rename(n.tree+".away", n.tree); err != nil {
		t.Fatal(err)
	}
	c.waitTree(30*time.Second, want)
	if left := n.held(); left != 0 {
		t.Errorf("%d are held although the root is back", left)
	}
}

// lookOn sees to it that trees stay as they are for several settling times.
func lookOn(t *testing.T, c *cluster, want snapshot, nodes []*node) {
	t.Helper()
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		c.waitTree(time.Second, want, nodes...)
		if err := sleep(t.Context(), 200*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

// surprise does something terrible to the third node's root and looks on.
func surprise(t *testing.T, c *cluster, want snapshot, terrible func(root string)) {
	t.Helper()
	c.in(t)
	victim := c.nodes[2]
	was := revision(t, c.nodes[0])
	terrible(victim.tree)
	victim.waitHeld(30 * time.Second)
	lookOn(t, c, want, c.nodes[:2])
	t.Logf("held:\n%.600s", victim.must("held"))
	victim.must("restore")
	got := eventually(t, 60*time.Second, "restore puts the tree back", func() error {
		got, err := c.reader.read(victim.tree)
		if err != nil {
			return err
		}
		return want.Differs(got)
	})
	eventually(t, 30*time.Second, "nothing is held any more", func() error {
		if n := victim.held(); n > 0 {
			return fmt.Errorf("%d held", n)
		}
		return nil
	})
	if now := revision(t, c.nodes[0]); now != was {
		t.Errorf("the log went from revision %d to %d: something of it was proposed", was, now)
	}
	t.Logf("put back in %v", got.Round(time.Millisecond))
	// The node is a full member again.
	write(t, victim.tree, "afterwards.xml", t.Name())
	eventually(t, 30*time.Second, "an edit after restore reaches the others", func() error {
		return stands(c.nodes[0].tree, "afterwards.xml", t.Name())
	})
	remove(t, victim.tree, "afterwards.xml")
	c.waitTree(30*time.Second, want)
}

// revision is the newest that a node knows.
func revision(t *testing.T, n *node) uint64 {
	t.Helper()
	s, err := n.status()
	if err != nil {
		t.Fatal(err)
	}
	return s.Revision
}

// top lists what stands directly in a root, but for the marker.
func top(t *testing.T, root string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if d.Name() != ".gatesync" {
			names = append(names, d.Name())
		}
	}
	return names
}

// filesOf lists the regular files of a snapshot in order.
func filesOf(s snapshot) (paths []string) {
	for p, what := range s {
		if what[0] == '-' {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}
