package integration

import (
	"fmt"
	"os"
	"slices"
	"syscall"
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
		surprise(t, c, want, func(root string) { atOnce(t, c.nodes[2], top(t, root)[1:]...) })
	})
	t.Run("Slowly", func(t *testing.T) {
		for range 5 {
			was, files := revision(t, c.nodes[0]), filesOf(want)
			if slowly(t, c.nodes[2].tree, files[:len(files)*8/10]) {
				surpriseSince(t, c, want, was, func(string) {})
				return
			}
			// The machine stood still for so long that what was gone by then may have
			// counted as a few deletions that were meant: all is made good, and again.
			t.Log("the machine stood still")
			c.nodes[2].waitHeld(30 * time.Second)
			c.nodes[2].must("restore")
			if _, _, err := gen.WriteTo(c.nodes[0].tree, gen.Tree(gen.Params{Seed: 8, Configs: 200})); err != nil {
				t.Fatal(err)
			}
			c.waitTree(time.Minute, want)
			c.waitEqual(time.Minute)
		}
		t.Fatal("the machine stood still each time")
	})
	t.Run("EmptiedRoot", func(t *testing.T) {
		surprise(t, c, want, func(root string) { atOnce(t, c.nodes[2], top(t, root)...) })
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
		surprise(t, c, want, func(root string) { atOnce(t, c.nodes[2], top(t, root)...) })
	})
	t.Run("EmptiedWithMarker", func(t *testing.T) {
		surprise(t, c, want, func(root string) { atOnce(t, c.nodes[2], append(top(t, root), ".gatesync")...) })
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
	atOnce(t, n, files[10:90]...)
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
	n.holdsNothing("after approve")
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
	n.holdsNothing("once the root is back")
}

// atOnce removes paths of a node's tree while its daemon stands still: a machine that
// stands still in the middle for longer than deletions take to settle makes two batches
// of them, and the first one may be small enough to be meant.
func atOnce(t *testing.T, n *node, paths ...string) {
	t.Helper()
	signal(t, n, syscall.SIGSTOP)
	defer signal(t, n, syscall.SIGCONT)
	remove(t, n.tree, paths...)
}

// slowly removes paths one after the other beside the running daemon. It tells whether
// no pause was long enough for deletions to settle in it, and all came within a burst.
func slowly(t *testing.T, root string, paths []string) bool {
	t.Helper()
	begun, last, longest := time.Now(), time.Now(), time.Duration(0)
	for _, path := range paths {
		remove(t, root, path)
		longest, last = max(longest, time.Since(last)), time.Now()
		if err := sleep(t.Context(), 20*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	return longest < 600*time.Millisecond && time.Since(begun) < 10*time.Second
}

// holdsNothing waits until the node holds nothing back any more.
func (n *node) holdsNothing(when string) {
	n.t.Helper()
	eventually(n.t, 30*time.Second, n.name+" holds nothing "+when, func() error {
		if left := n.held(); left > 0 {
			return fmt.Errorf("%d held", left)
		}
		return nil
	})
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
	surpriseSince(t, c, want, revision(t, c.nodes[0]), terrible)
}

func surpriseSince(t *testing.T, c *cluster, want snapshot, was uint64, terrible func(root string)) {
	t.Helper()
	c.in(t)
	victim := c.nodes[2]
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
	victim.holdsNothing("after restore")
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
