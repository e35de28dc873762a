package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// formats is what status says about the format of the log.
type formats struct {
	Format struct {
		Active, Newest uint32
		Waits          []string
	}
}

func (n *node) formats() (formats, error) {
	var f formats
	a := n.ask("status", "--json")
	return f, json.Unmarshal([]byte(a.stdout), &f)
}

// waitFormat waits until a node says this of the log's format.
func (n *node) waitFormat(active, newest uint32, waits ...string) {
	n.t.Helper()
	eventually(n.t, 20*time.Second, fmt.Sprintf("%s: format %d of %d", n.name, active, newest), func() error {
		f, err := n.formats()
		if err == nil && (f.Format.Active != active || f.Format.Newest != newest || strings.Join(f.Format.Waits, " ") != strings.Join(waits, " ")) {
			err = fmt.Errorf("it says %+v", f.Format)
		}
		return err
	})
}

// A cluster is upgraded node by node to a version with another format of the
// log, while every gateway writes. Leaders of both versions lead the mixed
// cluster; the format rises by itself after the last node, and not before;
// then the old version is refused wherever it turns up.
func TestPromise_Available_RollingUpgrade(t *testing.T) {
	t.Parallel()
	next := nextVersion(t)
	c := newCluster(t, 3)
	l := newLoad(t, c.nodes...)
	replace := func(n *node) {
		n.term()
		n.bin = next
		n.start()
		c.waitVoters(3)
	}
	first := c.leader(20 * time.Second)
	first.waitFormat(2, 2)
	replace(first)
	first.term() // and back again: that is free until the format rises
	first.bin = ""
	first.start()
	first.waitFormat(2, 2)
	c.waitVoters(3)
	yields := func(n *node) (leader *node) { // a busy machine may elect who just yielded
		for range 5 {
			if leader = c.leader(20 * time.Second); leader != n {
				return leader
			}
			n.term()
			n.start()
			c.waitVoters(3)
		}
		t.Fatalf("%s leads whenever it was stopped", n.name)
		return nil
	}
	yields(first)
	replace(first) // an old leader, a new follower
	first.waitFormat(2, 3, others(c, first)...)
	second := yields(first)
	c.spreads(first, "under-an-old-leader")
	replace(second)
	var old *node
	for _, n := range c.nodes {
		if n.bin == "" {
			old = n
		}
	}
	yields(old) // a new leader, an old follower
	c.spreads(old, "under-a-new-leader")
	first.waitFormat(2, 3, old.name)
	old.waitFormat(2, 2)

	// The new version's snapshot goes to the old one, which was away for longer
	// than the leader's log reaches back.
	old.term()
	had, before := map[*node]map[string]bool{}, map[*node]int{}
	look := func(n *node) int {
		entries, _ := os.ReadDir(filepath.Join(n.data, "raft", "snapshots")) // there may be none yet
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".tmp") {
				had[n][e.Name()] = true
			}
		}
		return len(had[n])
	}
	for _, n := range c.running() { // whoever leads then
		had[n] = map[string]bool{}
		before[n] = look(n)
	}
	eventually(t, 30*time.Second, "two snapshots on each without "+old.name, func() error {
		for _, n := range c.running() {
			if made := look(n) - before[n]; made < 2 {
				return fmt.Errorf("%d so far on %s", made, n.name)
			}
		}
		return nil
	})
	first.waitFormat(2, 3, old.name)                // it counts although it is down
	old.vars = []string{"GATESYNC_LOG_LEVEL=debug"} // Raft says it there
	old.start()
	c.waitVoters(3)
	c.spreads(old, "behind-a-snapshot")
	if log, err := os.ReadFile(old.logFile()); err != nil || !strings.Contains(string(log), "Installed remote snapshot") {
		t.Errorf("%s was not sent a snapshot, %v", old.name, err)
	}
	old.waitFormat(2, 2)

	old.term()
	backup := filepath.Join(c.dir, "old-backup")
	if out, err := exec.Command("cp", "-a", old.data, backup).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	old.bin = next
	old.start()
	for _, n := range c.nodes {
		n.waitFormat(3, 3)
	}
	c.spreads(old, "in-the-new-format")
	sameLogs(t, c)

	t.Run("the old version on a raised data directory", func(t *testing.T) {
		c.in(t)
		old.term()
		old.bin = ""
		before, tree := dirSums(t, old.data), dirSums(t, filepath.Join(old.tree, "spread"))
		a := old.ends(10 * time.Second)
		if a.code != 1 || !strings.Contains(a.stderr, "is of format 3") || !strings.Contains(a.stderr, "install the version") {
			t.Errorf("exit code %d: %s", a.code, a.stderr)
		}
		unchanged(t, old.data, before)
		unchanged(t, filepath.Join(old.tree, "spread"), tree)
	})
	t.Run("the old version on its old data directory", func(t *testing.T) {
		c.in(t)
		raised := old.data
		old.data = backup
		a := old.ends(20 * time.Second)
		// It is too old, and its data directory is older than what the others have
		// seen of it: which of the two it is told first is a matter of who dials whom.
		tooOld := strings.Contains(a.stderr, "log is of format 3") && strings.Contains(a.stderr, "install the version")
		if past := strings.Contains(a.stderr, "put back from an older state"); a.code != 1 || !tooOld && !past {
			t.Errorf("exit code %d: %s", a.code, a.stderr)
		}
		old.data = raised
	})
	t.Run("the old version joins", func(t *testing.T) {
		c.in(t)
		via := c.running()[0]
		token, stranger := via.token(), c.add()
		args := append([]string{via.addr, "--token", token}, c.joinFlags(stranger)...)
		if a := stranger.ask("join", args...); a.code != 1 || !strings.Contains(a.stderr, "too old for this cluster, whose log is of format 3") {
			t.Errorf("exit code %d: %s", a.code, a.stderr)
		}
		if log, err := os.ReadFile(via.logFile()); err != nil || !strings.Contains(string(log), "msg=refused") || !strings.Contains(string(log), "too old") {
			t.Errorf("%s says nothing of it, %v", via.name, err)
		}
		stranger.bin = next
		stranger.must("join", args...) // the token is still good
		stranger.start()
	})
	old.bin = next
	old.start()
	l.settle(c)
	sameLogs(t, c)
}

// others names the nodes without n, in the order of their names.
func others(c *cluster, n *node) (names []string) {
	for _, m := range c.nodes {
		if m != n {
			names = append(names, m.name)
		}
	}
	return names
}

// sameLogs checks that all nodes tell the same history, whatever version has
// applied it: the new version's messages begin with one revision, everywhere.
func sameLogs(t *testing.T, c *cluster) {
	t.Helper()
	type row struct {
		Revision uint64
		Message  string
	}
	tell := func(n *node) map[uint64]string {
		var rows []row
		if err := json.Unmarshal([]byte(n.must("log", "--json", "--limit", "100000")), &rows); err != nil {
			t.Fatal(err)
		}
		all := map[uint64]string{}
		begun, oldest, newest := uint64(0), ^uint64(0), uint64(0)
		for _, r := range rows {
			all[r.Revision] = r.Message
			if r.Message != "" && (begun == 0 || r.Revision < begun) {
				begun = r.Revision
			}
			oldest, newest = min(oldest, r.Revision), max(newest, r.Revision)
		}
		if begun <= oldest || begun > newest {
			t.Errorf("%s: the new format begins with revision %d of %d to %d", n.name, begun, oldest, newest)
		}
		for rev, msg := range all {
			if (rev >= begun) != (msg == "[format 3]") {
				t.Errorf("%s: revision %d says %q, the new format begins with %d", n.name, rev, msg, begun)
			}
		}
		return all
	}
	want := tell(c.running()[0])
	for _, n := range c.running()[1:] {
		for rev, msg := range tell(n) {
			if have, ok := want[rev]; ok && have != msg {
				t.Errorf("revision %d is %q on %s and %q on %s", rev, have, c.running()[0].name, msg, n.name)
			}
		}
	}
}
