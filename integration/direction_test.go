package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The documented way from one manager and its workers to a cluster in which each
// gateway may be written to (docs/migration.md): first no worker is, one that
// repairs and one that reports; then one after the other is. An edit on a worker
// is never spread unless a person says so, and never lost.
func TestPromise_NoLoss_ManagerAndWorkers(t *testing.T) {
	t.Parallel()
	c := emptyCluster(t)
	manager, repairs, reports := c.add(), c.add(), c.add()
	for _, n := range c.nodes {
		write(t, n.tree, "api.xml", "the manager's")
		write(t, n.tree, "seq.xml", "the manager's")
	}
	write(t, repairs.tree, "seq.xml", "of an older push")
	write(t, repairs.tree, "own.xml", "made on the worker")
	manager.must("init", c.joinFlags(manager)...)
	manager.start()
	manager.waits()
	c.admit(repairs, "--write", "never")
	c.admit(reports, "--write", "never", "--edits", "report")
	c.waitVoters(3)

	// What a worker has differently goes aside, what only it has is held.
	have := func(n *node, path, want string) {
		t.Helper()
		eventually(t, time.Minute, fmt.Sprintf("%s of %s is %q", path, n.name, want), func() error { return stands(n.tree, path, want) })
	}
	have(repairs, "seq.xml", "the manager's")
	repairs.waitHeld(30 * time.Second)
	repairs.must("restore", "own.xml")
	have(repairs, "own.xml", "")
	c.waitEqual(time.Minute)
	revision := c.revision(manager)

	// An edit on the worker that repairs.
	write(t, repairs.tree, "api.xml", "edited on the worker")
	repairs.moveIn("new", "local.xml", "made on the worker")
	remove(t, repairs.tree, "seq.xml")
	have(repairs, "api.xml", "the manager's")
	have(repairs, "new/local.xml", "")
	have(repairs, "seq.xml", "the manager's")
	for path, want := range map[string]string{"api.xml": "edited on the worker", "new/local.xml": "made on the worker"} {
		eventually(t, 30*time.Second, "the edit is kept aside", func() error {
			for id, p := range repairs.conflicts() {
				if p == path && repairs.must("conflicts", "show", id) == want {
					return nil
				}
			}
			return fmt.Errorf("%q is not", path)
		})
	}
	eventually(t, 30*time.Second, "the repairs are counted", func() error {
		if n, err := repairs.metric(`gatesync_tree_repaired_total{tree="server"}`); err != nil || n < 3 {
			return fmt.Errorf("%v, %w", n, err)
		}
		return nil
	})
	eventually(t, 30*time.Second, "the log names them", func() error {
		if n := strings.Count(repairs.logTail(10_000), "a local edit is not proposed"); n < 3 {
			return fmt.Errorf("%d of them", n)
		}
		return nil
	})

	// Edits on the worker that reports.
	write(t, reports.tree, "api.xml", "edited here")
	write(t, reports.tree, "local.xml", "made here")
	remove(t, reports.tree, "seq.xml")
	reports.waitEdited("api.xml", "local.xml", "seq.xml")
	eventually(t, 30*time.Second, "the metric says so", func() error {
		if n, err := reports.metric(`gatesync_tree_edited{tree="server"}`); err != nil || n != 3 {
			return fmt.Errorf("%v, %w", n, err)
		}
		return nil
	})
	if a := reports.ask("verify"); a.code != 3 || !strings.Contains(a.stdout, "local.xml") || !strings.Contains(a.stdout, "write: never") {
		t.Errorf("verify: exit code %d: %s%s", a.code, a.stdout, a.stderr)
	}
	manager.waits() // edits that stand are nothing to wait for
	if now := c.revision(manager); now != revision {
		t.Errorf("%d revisions were made of edits on workers", now-revision)
	}
	// The next revision of the path wins, and the edit goes aside.
	write(t, manager.tree, "api.xml", "the manager's second")
	for _, n := range c.nodes {
		have(n, "api.xml", "the manager's second")
	}
	reports.waitEdited("local.xml", "seq.xml")
	if len(reports.conflicts()) != 1 {
		t.Errorf("kept aside are %v", reports.conflicts())
	}

	// One worker after the other may be written to. What was edited before is not
	// spread by that, nor what is edited while the daemon is down.
	revision = c.revision(manager)
	for _, n := range []*node{reports, repairs} {
		n.term()
		write(t, n.tree, "down.xml", "made while "+n.name+" was down")
		n.settings("write: never", "write: any")
		n.start()
		want := []string{"down.xml"}
		if n == reports {
			want = []string{"down.xml", "local.xml", "seq.xml"}
		}
		n.waitEdited(want...)
		n.waits() // until it has looked around
		write(t, n.tree, "by-"+n.name+".xml", "of today")
		for _, m := range c.nodes {
			have(m, "by-"+n.name+".xml", "of today")
		}
		n.must("restore", "down.xml")
		have(n, "down.xml", "")
	}
	if now := c.revision(manager); now != revision+2 {
		t.Errorf("%d revisions, want one for each edit of today", now-revision)
	}
	reports.must("approve", "local.xml")
	have(manager, "local.xml", "made here")
	reports.must("restore")
	for _, n := range c.nodes {
		have(n, "local.xml", "made here")
	}
	c.waitEqual(time.Minute)

	// Words that nobody knows, and promises that nobody can keep.
	for _, tt := range []struct{ flags, says string }{
		{"--write=sometimes", "any, never"},
		{"--tree=s=/tmp/x,write=never,storage=direct", "other nodes have the same directory"},
	} {
		if a := c.add().ask("init", "--name", "x", tt.flags, "--tree", "t=/tmp/y"); a.code != 2 || !strings.Contains(a.stderr, tt.says) {
			t.Errorf("init %s: exit code %d: %s", tt.flags, a.code, a.stderr)
		}
	}
}

// revision is the newest that a node knows.
func (c *cluster) revision(n *node) uint64 {
	c.t.Helper()
	s, err := n.status()
	if err != nil {
		c.t.Fatal(err)
	}
	return s.Revision
}

// waitEdited waits until status names exactly these paths as edited.
func (n *node) waitEdited(want ...string) {
	n.t.Helper()
	eventually(n.t, time.Minute, n.name+" shows what stands edited", func() error {
		var s struct {
			Trees []struct {
				Edited      int
				EditedPaths []struct{ Path string } `json:"edited_paths"`
			}
		}
		if err := json.Unmarshal([]byte(n.ask("status", "--json").stdout), &s); err != nil {
			return err
		}
		var have []string
		for _, e := range s.Trees[0].EditedPaths {
			have = append(have, e.Path)
		}
		if !slices.Equal(have, want) || s.Trees[0].Edited != len(want) {
			return fmt.Errorf("%d: %q, want %q", s.Trees[0].Edited, have, want)
		}
		return nil
	})
}

// moveIn moves a directory with a file into the tree at once. (A directory that is
// made there and not committed is taken away before a file gets into it.)
func (n *node) moveIn(dir, file, content string) {
	n.t.Helper()
	made := filepath.Join(n.t.TempDir(), dir)
	write(n.t, made, file, content)
	if err := os.Rename(made, filepath.Join(n.tree, dir)); err != nil {
		n.t.Fatal(err)
	}
}

// settings edits the node's settings as sed does.
func (n *node) settings(old, new string) {
	n.t.Helper()
	file := filepath.Join(n.data, "gatesync.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		n.t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), "\n"+old, "\n"+new)
	if text == string(b) {
		n.t.Fatalf("%q is not in %s", old, file)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}
