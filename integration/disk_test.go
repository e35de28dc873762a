package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disks gives each node a small disk of its own for its data directory, which
// can be frozen, and one for its tree.
func disks(c *cluster) {
	c.place = func(n *node) {
		c.mountLoop(n.data, 192)
		root := filepath.Join(filepath.Dir(n.data), "disk")
		c.mountTmpfs(root, 64)
		n.tree = filepath.Join(root, "tree")
		n.vars = []string{"GATESYNC_FREE_RESERVE=16MB"}
	}
}

// diskOf is the mount that a node's tree lies on.
func diskOf(n *node) string { return filepath.Dir(n.tree) }

// says waits until a node's status tells a person this.
func (n *node) says(limit time.Duration, want string) {
	n.t.Helper()
	var a answer
	eventually(n.t, limit, n.name+"'s status tells: "+want, func() error {
		a = n.ask("status")
		if !strings.Contains(a.stdout, want) {
			return fmt.Errorf("status: exit code %d:\n%s%s", a.code, a.stdout, a.stderr)
		}
		return nil
	})
	if _, advice, ok := strings.Cut(a.stdout, "needs attention:\n"); ok {
		n.t.Logf("%s says (exit code %d):\n%s", n.name, a.code, advice)
	}
}

// quiet waits until a node's status asks for no attention.
func (n *node) quiet(limit time.Duration) {
	n.t.Helper()
	eventually(n.t, limit, n.name+" is content", func() error {
		a := n.ask("status")
		if a.code != 0 || strings.Contains(a.stdout, "needs attention") {
			return fmt.Errorf("status: exit code %d:\n%s%s", a.code, a.stdout, a.stderr)
		}
		return nil
	})
}

// passes sees to it that what one node writes stands on another in time.
func passes(t *testing.T, from, to *node, what string) {
	t.Helper()
	path, text := "pass-"+strings.ReplaceAll(what, " ", "-")+".xml", what+"\n"
	write(t, from.tree, path, text)
	took := eventually(t, 20*time.Second, "a write passes "+what, func() error { return stands(to.tree, path, text) })
	t.Logf("a write %s took %v", what, took.Round(time.Millisecond))
}

// A disk that is full, cannot be written or hangs takes its own node out, which
// says so; the others go on, and all heals by itself.
func TestPromise_Available_Disks(t *testing.T) {
	t.Parallel()
	c := emptyCluster(t)
	disks(c)
	c.boot(3)
	for i := range 40 {
		write(t, c.nodes[0].tree, fmt.Sprintf("d%d/%d.xml", i%4, i), fmt.Sprintf("file %d\n", i))
	}
	c.waitEqual(30 * time.Second)
	text := strings.Repeat("a line of a file that needs room\n", 4000)
	run := func(name string, ofLeader bool, f func(t *testing.T, n, a, b *node)) {
		t.Run(name, func(t *testing.T) {
			c.in(t)
			n := c.leader(30 * time.Second)
			if !ofLeader {
				n = c.except(n)[0]
			}
			rest := c.except(n)
			f(t, n, rest[0], rest[1])
			c.waitEqual(60 * time.Second)
			for _, m := range c.nodes {
				if left := m.conflicts(); len(left) > 0 {
					t.Errorf("%s has conflicts where nobody wrote the same file: %v", m.name, left)
				}
				m.quiet(30 * time.Second)
			}
		})
	}
	fullData := func(t *testing.T, n, a, b *node) {
		empty := fill(t, n.data, 0)
		passes(t, a, b, t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]+" beside a full data directory")
		write(t, n.tree, "own-"+filepath.Base(t.Name())+".xml", text)
		n.says(15*time.Second, "data directory")
		n.says(15*time.Second, "some space")
		n.kill() // and it starts on a full disk, too
		n.start()
		passes(t, a, b, t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]+" after the restart of a full node")
		empty()
		eventually(t, 30*time.Second, "what was written on the full node stands on the others", func() error {
			return stands(a.tree, "own-"+filepath.Base(t.Name())+".xml", text)
		})
	}
	run("DataFull", false, fullData)
	run("DataFullOfLeader", true, fullData)
	run("TreeFull", false, func(t *testing.T, n, a, b *node) {
		empty := fill(t, diskOf(n), 0)
		write(t, a.tree, "large.xml", text)
		passes(t, a, b, "beside a full tree")
		n.says(15*time.Second, "no space")
		remove(t, a.tree, "d0/0.xml") // what needs no room is done
		eventually(t, 15*time.Second, "a deletion is applied to a full tree", func() error { return stands(n.tree, "d0/0.xml", "") })
		empty()
		eventually(t, 30*time.Second, "the file comes by itself", func() error { return stands(n.tree, "large.xml", text) })
	})
	run("TreeReadOnly", false, func(t *testing.T, n, a, b *node) {
		was := revision(t, a)
		remount(t, diskOf(n), unix.MS_RDONLY)
		t.Cleanup(func() { remount(t, diskOf(n), 0) })
		passes(t, a, b, "beside a read-only tree")
		remove(t, a.tree, "d1/1.xml")
		n.says(15*time.Second, "is read-only")
		if now := revision(t, a); now > was+4 {
			t.Errorf("the log went from revision %d to %d: the read-only node proposes something", was, now)
		}
		remount(t, diskOf(n), 0)
		eventually(t, 30*time.Second, "the change comes by itself", func() error { return stands(n.tree, "d1/1.xml", "") })
	})
	run("DataFrozenOfLeader", true, func(t *testing.T, n, a, b *node) {
		thaw := freeze(t, n.data)
		passes(t, a, b, "beside a leader whose disk hangs")
		n.says(15*time.Second, "hangs")
		write(t, n.tree, "own-frozen.xml", text)
		if lead := mustLead(t, a); lead == n.name {
			t.Errorf("%s still leads", lead)
		}
		thaw()
		eventually(t, 30*time.Second, "what was written on the frozen node stands on the others", func() error {
			return stands(a.tree, "own-frozen.xml", text)
		})
	})
	run("DataFrozenOfFollower", false, func(t *testing.T, n, a, b *node) {
		thaw := freeze(t, n.data)
		passes(t, a, b, "beside a follower whose disk hangs")
		passes(t, b, a, "back, beside a follower whose disk hangs")
		thaw()
	})
}

// mustLead is the name of whom a node takes for the leader.
func mustLead(t *testing.T, n *node) string {
	t.Helper()
	s, err := n.status()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Members {
		if m.ID == s.Leader {
			return m.Name
		}
	}
	return ""
}

// A data directory whose file system fails for good (the kernel makes it
// read-only) ends neither the cluster nor anything that was written: repaired,
// it goes on.
func TestPromise_NoLoss_DataFileSystemFails(t *testing.T) {
	t.Parallel()
	c := emptyCluster(t)
	disks(c)
	c.boot(3)
	write(t, c.nodes[0].tree, "a.xml", "one\n")
	c.waitEqual(30 * time.Second)
	n := c.leader(30 * time.Second)
	rest := c.except(n)
	fail, err := failSwitch(n.data)
	if err != nil {
		t.Skipf("needs an ext4 with a switch to make it fail (/sys/fs/ext4/*/trigger_fs_error): %v", err)
	}
	if _, err := sh("mount", "-o", "remount,errors=remount-ro", n.data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fail, []byte("1"), 0o200); err != nil {
		t.Fatal(err)
	}
	passes(t, rest[0], rest[1], "beside a leader whose file system has failed")
	write(t, n.tree, "own.xml", "written while it could not be taken\n")
	n.says(15*time.Second, "read-only file system")
	eventually(t, 30*time.Second, "the failed node says that it can commit nothing", func() error {
		if a := n.ask("status"); a.code != 5 {
			return fmt.Errorf("status: exit code %d:\n%s%s", a.code, a.stdout, a.stderr)
		}
		return nil
	})
	n.kill()
	unmount(t, n.data)
	eventually(t, 30*time.Second, "the kernel has let go of the disk", func() error { // another test's container may have it a moment longer
		out, err := sh("losetup", "-j", n.data+".img")
		if err == nil && out != "" {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	if out, err := sh("e2fsck", "-fy", n.data+".img"); err != nil && !strings.Contains(err.Error(), "exit status 1") {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := sh("mount", "-o", "loop", n.data+".img", n.data); err != nil {
		t.Fatal(err)
	}
	n.start()
	eventually(t, 30*time.Second, "what was written meanwhile stands on the others", func() error {
		return stands(rest[0].tree, "own.xml", "written while it could not be taken\n")
	})
	c.waitEqual(30 * time.Second)
}

// failSwitch finds the file that makes the file system of dir fail.
func failSwitch(dir string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", err
	}
	dev, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return "", err
	}
	path := filepath.Join("/sys/fs/ext4", filepath.Base(dev), "trigger_fs_error")
	_, err = os.Stat(path)
	return path, err
}
