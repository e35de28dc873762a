package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Two of three are lost for good, with revisions that the third has never
// seen. It is recovered, writes work, and the two return after all, one of
// them edited while it was away: all are equal, and what only they had is kept
// aside on them.
func TestPromise_NoLoss_RecoverAfterALostMajority(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, b, d := c.nodes[0], c.nodes[1], c.nodes[2]
	write(t, a.tree, "kept/a.xml", "a\n")
	write(t, b.tree, "both.xml", "before\n")
	c.waitEqual(30 * time.Second)

	if got := a.ask("recover", "--yes"); got.code != 1 || !strings.Contains(got.stderr, "another gatesync") {
		t.Errorf("recover beside its daemon: %+v", got)
	}
	a.term()
	if got := a.ask("recover", "--yes"); got.code != 1 || !strings.Contains(got.stderr, "the majority is not lost") {
		t.Errorf("recover of a cluster that works: %+v", got)
	}
	// The others go on without it, until they are lost.
	write(t, b.tree, "never-seen.xml", "only on the lost two\n")
	write(t, d.tree, "both.xml", "of the lost majority\n")
	c.waitEqual(30 * time.Second)
	b.kill()
	d.kill()

	if got := a.ask("recover"); got.code != 1 || !strings.Contains(got.stderr, "--yes") {
		t.Errorf("recover without a terminal and without --yes: %+v", got)
	}
	var facts struct {
		Name     string
		Revision uint64
		Members  []struct {
			Name  string
			Alive bool
			Heard *time.Time
		}
	}
	if err := json.Unmarshal([]byte(a.must("recover", "--dry-run", "--json")), &facts); err != nil {
		t.Fatal(err)
	}
	if len(facts.Members) != 2 || facts.Members[0].Alive || facts.Members[0].Heard == nil || facts.Name != a.name || facts.Revision == 0 {
		t.Errorf("the facts: %+v", facts)
	}
	out := a.must("recover", "--yes")
	for _, want := range []string{"MAY BE LOST", "all content of these trees is on this node", "only voter of incarnation 2"} {
		if !strings.Contains(out, want) {
			t.Errorf("recover does not say %q: %s", want, out)
		}
	}
	a.start()
	write(t, a.tree, "both.xml", "of the recovered life\n")
	write(t, a.tree, "new.xml", "new\n")
	c.waitEqual(30 * time.Second)

	// They come back one after the other.
	write(t, b.tree, "edited-away.xml", "written while it was away\n")
	remove(t, b.tree, "kept/a.xml")
	b.start()
	took := eventually(t, 60*time.Second, "the first to return holds the recovered tree", func() error {
		return stands(b.tree, "new.xml", "new\n")
	})
	t.Logf("the first returner had caught up after %v", took.Round(time.Millisecond))
	d.start()
	c.waitVoters(3)
	want := c.waitEqual(30 * time.Second)
	for path, text := range map[string]string{
		"both.xml": "of the recovered life\n", "new.xml": "new\n", "kept/a.xml": "a\n", "never-seen.xml": "", "edited-away.xml": "",
	} {
		if err := stands(a.tree, path, text); err != nil {
			t.Error(err)
		}
	}
	wantAside(t, b, map[string]string{"never-seen.xml": "only on the lost two\n", "both.xml": "of the lost majority\n", "edited-away.xml": "written while it was away\n"})
	wantAside(t, d, map[string]string{"never-seen.xml": "only on the lost two\n", "both.xml": "of the lost majority\n"})
	wantAside(t, a, nil)
	for _, n := range []*node{a, b, d} {
		if _, err := os.Stat(filepath.Join(n.data, "raft.before-incarnation-2")); err != nil {
			t.Errorf("%s did not keep its old log: %v", n.name, err)
		}
	}
	// And it is a cluster like any other: the recovered node may go.
	a.kill()
	write(t, d.tree, "without-it.xml", "x\n")
	eventually(t, 30*time.Second, "a write without the recovered node", func() error { return stands(b.tree, "without-it.xml", "x\n") })
	a.start()
	c.waitEqual(30 * time.Second)
	if len(want) == 0 {
		t.Error("the tree is empty")
	}
}

// Two of five survive, one of which lags behind the other and is told so. The
// other is recovered beside its running daemon, which yields by itself: what
// waited on either is committed. One of the lost returns, edited; the two that
// stay lost are missed by nobody.
func TestPromise_NoLoss_RecoverTwoOfFive(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5)
	ahead, behind, lost := c.nodes[0], c.nodes[1], c.nodes[2:]
	write(t, lost[0].tree, "all.xml", "seen by all\n")
	c.waitEqual(30 * time.Second)
	behind.kill()
	write(t, lost[1].tree, "missed.xml", "seen by four\n")
	c.waitEqual(30 * time.Second)
	for _, n := range lost {
		n.kill()
	}
	write(t, ahead.tree, "waits.xml", "edited without a quorum\n")
	write(t, behind.tree, "waits-too.xml", "edited while it was down\n")

	out := behind.must("recover", "--dry-run")
	if want := "the log of " + ahead.name + " goes further"; !strings.Contains(out, want) {
		t.Errorf("recover on the one that lags does not say %q: %s", want, out)
	}
	behind.start()
	ahead.term()
	ahead.must("recover", "--yes")
	ahead.start()
	eventually(t, 60*time.Second, "the other survivor holds what it missed", func() error {
		return stands(behind.tree, "missed.xml", "seen by four\n")
	})
	write(t, ahead.tree, "after.xml", "of the recovered life\n")
	c.waitEqual(60 * time.Second)

	write(t, lost[0].tree, "edited-away.xml", "written while it was away\n")
	lost[0].start()
	c.waitVoters(3)
	c.waitEqual(60 * time.Second)
	for path, text := range map[string]string{
		"all.xml": "seen by all\n", "missed.xml": "seen by four\n", "waits.xml": "edited without a quorum\n", "after.xml": "of the recovered life\n", "edited-away.xml": "",
	} {
		for _, n := range c.running() {
			if err := stands(n.tree, path, text); err != nil {
				t.Errorf("%s: %v", n.name, err)
			}
		}
	}
	wantAside(t, ahead, nil)
	wantAside(t, behind, map[string]string{"waits-too.xml": "edited while it was down\n"})
	wantAside(t, lost[0], map[string]string{"edited-away.xml": "written while it was away\n"})
	// Three of them vote: one more may go.
	ahead.kill()
	write(t, lost[0].tree, "without-it.xml", "x\n")
	eventually(t, 30*time.Second, "a write without the recovered node", func() error { return stands(behind.tree, "without-it.xml", "x\n") })
}

// wantAside compares what a node has kept aside.
func wantAside(t *testing.T, n *node, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for id, path := range n.conflicts() {
		got[path] = n.must("conflicts", "show", id)
	}
	for path, text := range want {
		if got[path] != text {
			t.Errorf("%s keeps aside for %s: %q, want %q", n.name, path, got[path], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s keeps aside %v", n.name, got)
	}
}
