package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/integration/gen"
)

// A node is killed; the others go on, and so does its own gateway. What it
// did while its daemon was down becomes proposals, never a silent overwrite.
func TestPromise_Converge_KilledNodeReturns(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, b, dead := c.nodes[0], c.nodes[1], c.nodes[2]
	if _, _, err := gen.WriteTo(a.tree, gen.Tree(gen.Params{Seed: 4, Configs: 300, Archives: 2})); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		write(t, b.tree, fmt.Sprintf("moving/deep/%d.xml", i), fmt.Sprintf("file %d\n", i))
	}
	for _, p := range []string{"mine.xml", "both.xml", "same.xml", "gone-there.xml", "gone-here.xml"} {
		write(t, a.tree, p, "before\n")
	}
	c.waitEqual(time.Minute)
	dead.kill()

	// The others go on.
	rename(t, a.tree, "moving", "moved")
	rename(t, b.tree, "tenants/1", "tenants/renamed")
	write(t, b.tree, "new-there.xml", "there\n")
	write(t, b.tree, "both.xml", "there\n")
	write(t, b.tree, "same.xml", "agreed\n")
	remove(t, a.tree, "gone-there.xml")
	rename(t, a.tree, "nginx/conf.d", "nginx/sites")
	// So does the dead node's gateway.
	write(t, dead.tree, "new-here.xml", "here\n")
	write(t, dead.tree, "mine.xml", "here\n")
	write(t, dead.tree, "both.xml", "here\n")
	write(t, dead.tree, "same.xml", "agreed\n")
	remove(t, dead.tree, "gone-here.xml")
	live := c.waitEqual(time.Minute)
	if live["new-here.xml"] != "" || live["new-there.xml"] == "" {
		t.Fatal("the living nodes hold what only the dead one has, or lack what they have")
	}

	dead.start()
	c.waitEqual(time.Minute)
	for path, want := range map[string]string{
		"new-here.xml": "here\n", "mine.xml": "here\n", "new-there.xml": "there\n", "both.xml": "there\n", "same.xml": "agreed\n",
		"gone-there.xml": "", "gone-here.xml": "", "moved/deep/7.xml": "file 7\n", "moving/deep/7.xml": "",
	} {
		for _, n := range c.nodes {
			if err := stands(n.tree, path, want); err != nil {
				t.Error(err)
			}
		}
	}
	for _, p := range []string{"moving", "tenants/1", "nginx/conf.d"} {
		if _, err := os.Lstat(filepath.Join(dead.tree, p)); err == nil {
			t.Errorf("%s still stands on the node that was down", p)
		}
	}
	losers := dead.conflicts()
	if len(losers) != 1 {
		t.Errorf("conflicts of the returned node: %v, want both.xml alone", losers)
	}
	for id, path := range losers {
		if got := dead.must("conflicts", "show", id); path != "both.xml" || got != "here\n" {
			t.Errorf("kept aside for %s: %q", path, got)
		}
	}
}

// A daemon is asked to end in the middle of anything: it does within five
// seconds, and the next start needs no repair.
func TestPromise_Converge_TermInTheMiddle(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	rng := rand.New(rand.NewPCG(11, 0))
	var slowest time.Duration
	rounds := size(5, 20)
	for round := range rounds {
		n := c.nodes[round%3]
		author := c.nodes[(round+round/3)%3] // the one that is stopped, and others
		done := make(chan error, 1)
		go func() {
			_, _, err := gen.WriteTo(filepath.Join(author.tree, fmt.Sprintf("round%d", round)), gen.Tree(gen.Params{
				Seed: uint64(round), Configs: 300, Archives: 3, Archive: 4 << 20,
			}))
			done <- err
		}()
		if err := sleep(t.Context(), time.Duration(rng.IntN(1500))*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, n.term())
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		n.start()
	}
	if got, want := fileCount(c.waitEqual(2*time.Minute)), rounds*303; got != want {
		t.Errorf("%d files stand, %d were written", got, want)
	}
	for _, n := range c.nodes {
		if log := n.logTail(1 << 20); strings.Contains(log, "panic:") || strings.Contains(log, "DATA RACE") {
			t.Errorf("%s panicked: see its log", n.name)
		}
		if left := n.conflicts(); len(left) > 0 {
			t.Errorf("%s has conflicts where nobody wrote the same file: %v", n.name, left)
		}
	}
	t.Logf("the slowest end took %v", slowest.Round(time.Millisecond))
}
