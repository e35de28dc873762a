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

// diagnosis is what `doctor --json` prints.
type diagnosis struct {
	Problems int `json:"problems"`
	Checks   []struct {
		Name     string `json:"name"`
		Findings []struct {
			Severity, Check, Subject, What, Remedy string
		} `json:"findings"`
	} `json:"checks"`
}

// doctor examines a node, and sees that the exit code says the same.
func (n *node) doctor() (d diagnosis) {
	n.t.Helper()
	a := n.ask("doctor", "--json")
	if err := json.Unmarshal([]byte(a.stdout), &d); err != nil {
		n.t.Fatalf("doctor on %s: %v: %s%s", n.name, err, a.stdout, a.stderr)
	}
	if want := min(d.Problems, 1); a.code != want {
		n.t.Errorf("doctor on %s: %d problems and exit code %d", n.name, d.Problems, a.code)
	}
	return d
}

// problems lists them as "check: subject: what".
func (d diagnosis) problems() (out []string) {
	for _, c := range d.Checks {
		for _, f := range c.Findings {
			if f.Severity == "problem" {
				out = append(out, f.Check+": "+f.Subject+": "+f.What+" | "+f.Remedy)
			}
		}
	}
	return out
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	n := c.nodes[1]
	write(t, n.tree, "apis/a.xml", "a\n")
	c.waitEqual(30 * time.Second)
	before := c.read(n)
	finds := func(what string, want ...string) {
		t.Helper()
		eventually(t, 30*time.Second, what, func() error { // a busy machine may be late with an answer
			got := n.doctor().problems()
			for _, w := range want {
				if !slices.ContainsFunc(got, func(g string) bool { return strings.Contains(g, w) }) {
					return fmt.Errorf("no %q in %q", w, got)
				}
			}
			if len(got) != len(want) {
				return fmt.Errorf("%d problems, want %d: %q", len(got), len(want), got)
			}
			return nil
		})
	}
	finds("a cluster that is well")
	if left, err := filepath.Glob(filepath.Join(n.tree, ".gatesync", "doctor-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	out := n.must("doctor")
	for _, want := range []string{"data directory", "members", "shared directories", "0 problems"} {
		if !strings.Contains(out, want) && !strings.Contains(out, "all is well") {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if err := os.Chmod(n.data, 0o755); err != nil {
		t.Fatal(err)
	}
	finds("an open data directory", "chmod 700 "+n.data)
	if err := os.Chmod(n.data, 0o700); err != nil {
		t.Fatal(err)
	}
	c.nodes[2].kill()
	finds("a dead voter", "members: gw3", "no further voter may fail")
	hidden := n.tree + ".away"
	if err := os.Rename(n.tree, hidden); err != nil {
		t.Fatal(err)
	}
	finds("a tree that is gone", "trees: server", "members: gw3", "no further voter may fail")
	if err := os.Mkdir(n.tree, 0o755); err != nil {
		t.Fatal(err)
	}
	finds("an empty directory in its place", "has no marker", "members: gw3", "no further voter may fail")
	if err := os.Remove(n.tree); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(hidden, n.tree); err != nil {
		t.Fatal(err)
	}
	n.kill()
	finds("without its own daemon", "members: gw3", "1 of 3 voters answer")
	n.start()
	c.nodes[2].start()
	c.waitVoters(3)
	eventually(t, 30*time.Second, "all is well again", func() error {
		if got := n.doctor().problems(); len(got) > 0 {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	if err := before.Differs(c.read(n)); err != nil {
		t.Errorf("the tree is not as it was: %v", err)
	}
	if a := n.ask("doctor", "--data-dir", filepath.Join(c.dir, "none")); a.code != 1 || !strings.Contains(a.stderr, "gatesync init") {
		t.Errorf("without a node: %+v", a)
	}
}
