package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/integration/gen"
)

// materialized is what `materialize --json` prints.
type materialized struct {
	Written  bool   `json:"written"`
	Revision uint64 `json:"revision"`
	Known    uint64 `json:"known_committed"`
	Current  bool   `json:"current"`
	Files    int    `json:"files"`
	Missing  []struct {
		Path string `json:"path"`
	} `json:"missing"`
}

// copyTo materializes into a new directory and reads what stands there.
func (n *node) copyTo(c *cluster, dir string, flags ...string) (materialized, snapshot) {
	c.t.Helper()
	var m materialized
	out := n.must("materialize", append([]string{"--to", dir, "--json"}, flags...)...)
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		c.t.Fatalf("%v in %q", err, out)
	}
	got, err := c.reader.read(dir)
	if err != nil {
		c.t.Fatal(err)
	}
	return m, got
}

// A tree is gone for good, on all nodes. Each has a copy of it at once, from
// its own content: with its daemon and without it, with a majority and
// without, of the newest revision and of an earlier one.
func TestPromise_NoLoss_MaterializeWithoutTheTree(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	n := c.nodes[1]
	if _, _, err := gen.WriteTo(filepath.Join(n.tree, "apis"), gen.Tree(gen.Params{Seed: 7, Configs: size(200, 5000), Archives: 2, Archive: 3 << 20})); err != nil {
		t.Fatal(err)
	}
	write(t, n.tree, "bin/run.sh", "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(n.tree, "bin/run.sh"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("bin/run.sh", filepath.Join(n.tree, "start")); err != nil {
		t.Fatal(err)
	}
	before := c.waitEqual(60 * time.Second)
	first, err := n.status()
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.nodes[0].tree, "late.xml", "late\n")
	remove(t, c.nodes[0].tree, "bin/run.sh")
	after := c.waitEqual(60 * time.Second)
	c.waitContent(c.nodes...)

	// At once, as a mount goes: of what is deleted bit by bit the first may be meant.
	for _, m := range c.nodes {
		if err := os.Rename(m.tree, m.tree+".gone"); err != nil {
			t.Fatal(err)
		}
		m.waitHeld(30 * time.Second)
		removeDir(t, m.tree+".gone")
	}
	copies := 0
	check := func(what string, m materialized, got, want snapshot, current bool) {
		t.Helper()
		if err := want.Differs(got); err != nil || !m.Written || m.Current != current || m.Files != fileCount(want) {
			t.Errorf("%s: %+v, %v", what, m, err)
		}
	}
	to := func() string { copies++; return filepath.Join(c.dir, fmt.Sprintf("copy%d", copies)) }
	m, got := n.copyTo(c, to())
	check("the newest", m, got, after, true)
	m, got = n.copyTo(c, to(), "--tree", "server", "--revision", fmt.Sprint(first.Revision))
	check("an earlier one", m, got, before, true)
	taken := filepath.Join(c.dir, "copy1")
	if a := n.ask("materialize", "--to", taken); a.code != 1 || !strings.Contains(a.stderr, "is not empty") {
		t.Errorf("into a directory that is not empty: %+v", a)
	}
	if a := n.ask("materialize", "--to", n.tree); a.code != 1 || !strings.Contains(a.stderr, "directory of tree server") {
		t.Errorf("into the tree's own directory: %+v", a)
	}
	if a := n.ask("materialize"); a.code != 2 {
		t.Errorf("without --to: %+v", a)
	}

	c.nodes[0].kill()
	c.nodes[2].kill()
	eventually(t, 15*time.Second, "the majority is known to be gone", func() error {
		s, err := n.status()
		if err == nil && s.Quorum {
			err = fmt.Errorf("there is a quorum of one in three")
		}
		return err
	})
	m, got = n.copyTo(c, to())
	check("without a majority", m, got, after, false)
	n.kill()
	m, got = n.copyTo(c, to())
	check("without a daemon", m, got, after, false)
	if m.Known > m.Revision {
		t.Errorf("%+v", m)
	}

	// Without its blobs the node names what it lacks, and writes nothing.
	if err := os.RemoveAll(filepath.Join(n.data, "blobs")); err != nil {
		t.Fatal(err)
	}
	dir := to()
	if a := n.ask("materialize", "--to", dir); a.code != 1 || !strings.Contains(a.stdout, "missing: ") || !strings.Contains(a.stderr, "nothing was written") {
		t.Errorf("without content: %+v", a)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Error("a directory was left behind")
	}
	if a := n.ask("materialize", "--to", dir, "--partial"); a.code != 3 {
		t.Errorf("what there is: %+v", a)
	}
	if _, err := os.Lstat(filepath.Join(dir, "start")); err != nil {
		t.Error(err)
	}
}
