package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// The same file is written on two nodes at the same moment, again and again:
// one of both stands everywhere, the other's bytes are kept aside on the node
// where they were written, and no tree ever gets a file more.
func TestPromise_NoLoss_SameFileOnTwoNodes(t *testing.T) {
	t.Parallel()
	const rounds, files = 200, 8
	c := newCluster(t, 3)
	a, b := c.nodes[0], c.nodes[1]
	for i := range files {
		write(t, a.tree, hotFile(i), "before\n")
	}
	before := c.waitEqual(30 * time.Second)

	lost := map[string]bool{} // texts that no tree holds any more
	ordered := 0
	for round := range rounds {
		path := hotFile(round % files)
		texts := map[*node]string{a: fmt.Sprintf("round %d, written on %s\n", round, a.name), b: fmt.Sprintf("round %d, written on %s\n", round, b.name)}
		var ready, done sync.WaitGroup
		ready.Add(2)
		for n, text := range texts {
			done.Go(func() {
				ready.Done()
				ready.Wait()
				if err := writeFile(n.tree, path, text); err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
		var winner string
		eventually(t, 30*time.Second, fmt.Sprintf("round %d: one text on all nodes", round), func() error {
			winner = content(a.tree, path)
			if winner != texts[a] && winner != texts[b] {
				return fmt.Errorf("%s holds %q", a.name, winner)
			}
			for _, n := range c.nodes[1:] {
				if err := stands(n.tree, path, winner); err != nil {
					return err
				}
			}
			return settled(c)
		})
		for _, text := range texts {
			if text != winner {
				lost[text] = true
			}
		}
	}
	after := c.waitEqual(30 * time.Second)
	if len(after) != len(before) {
		t.Errorf("the tree had %d entries and has %d: %v", len(before), len(after), after)
	}

	// Where one write came to the other node before that node's own, it was
	// an edit of it and no conflict; then both are revisions. How often that is, is
	// the machine's affair.
	kept := map[string]bool{}
	for _, n := range c.nodes {
		for id := range n.conflicts() {
			kept[n.must("conflicts", "show", id)] = true
		}
	}
	committed := digestsOf(t, a.must("log", "--json", "--paths", "--limit", "100000"))
	for text := range lost {
		if kept[text] {
			continue
		}
		round, _, _ := strings.Cut(text, ",")
		ordered++
		t.Logf("%s: no conflict", round)
		if !committed[manifest.DigestOf([]byte(text)).String()] {
			t.Errorf("%q is lost: it is neither kept aside nor a revision", text)
		}
	}
	if len(kept) == 0 {
		t.Errorf("%d texts lost, and none of them in a conflict", len(lost))
	}
	t.Logf("%d rounds: %d losers kept aside, %d in order", rounds, len(kept), ordered)
	restoreAndDrop(t, c)
}

// restoreAndDrop brings one loser back as a new edit and forgets the others.
func restoreAndDrop(t *testing.T, c *cluster) {
	for _, n := range c.nodes[:2] {
		for id, path := range n.conflicts() {
			text := n.must("conflicts", "show", id)
			n.must("conflicts", "restore", id)
			eventually(t, 30*time.Second, "the restored text stands everywhere", func() error {
				for _, n := range c.nodes {
					if err := stands(n.tree, path, text); err != nil {
						return err
					}
				}
				return nil
			})
			break
		}
	}
	for _, n := range c.nodes[:2] {
		n.must("conflicts", "drop", "--all")
		if left := n.conflicts(); len(left) != 0 {
			t.Errorf("%s still lists %d conflicts after they were dropped", n.name, len(left))
		}
	}
}

func hotFile(i int) string { return fmt.Sprintf("synapse-configs/default/api/hot%d.xml", i) }

// settled asks whether every running node has applied the newest revision.
func settled(c *cluster) error {
	var newest uint64
	for pass := range 2 {
		for _, n := range c.running() {
			s, err := n.status()
			if err != nil {
				return err
			}
			newest = max(newest, s.Revision)
			if pass == 1 && s.Trees[0].Applied < newest {
				return fmt.Errorf("%s has applied %d of %d", n.name, s.Trees[0].Applied, newest)
			}
		}
	}
	return nil
}

// digestsOf lists the content that `log --json --paths` names.
func digestsOf(t *testing.T, out string) map[string]bool {
	t.Helper()
	var rows []struct{ Changes []struct{ Digest string } }
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("log --json: %v in %.300s", err, out)
	}
	found := map[string]bool{}
	for _, r := range rows {
		for _, ch := range r.Changes {
			found[ch.Digest] = true
		}
	}
	return found
}
