package integration

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/integration/gen"
)

// A fourth node joins a cluster of 20,000 files with files of its own in its
// tree: they are held, neither deleted nor spread, until they are approved.
// A fifth adopts its own at once. Then a voter is removed.
func TestPromise_NoLoss_FourthNodeJoins(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	count := size(8000, 20000)
	start := time.Now()
	if _, _, err := gen.WriteTo(c.nodes[0].tree, gen.Tree(gen.Params{Seed: 9, Configs: count, MinConfig: 500, MaxConfig: 2500})); err != nil {
		t.Fatal(err)
	}
	want := c.waitEqual(3 * time.Minute)
	t.Logf("%d files on three nodes after %v", count, time.Since(start).Round(time.Millisecond))

	// One file that nobody has, one that differs, one that is the same.
	known := gen.Config(gen.Params{Seed: 9, MinConfig: 500, MaxConfig: 2500}, 5)
	differs := gen.Config(gen.Params{Seed: 9, MinConfig: 500, MaxConfig: 2500}, 6)
	fourth := c.add()
	write(t, fourth.tree, "own/local.xml", "only here\n")
	write(t, fourth.tree, differs.Path, "other content\n")
	write(t, fourth.tree, known.Path, string(known.Data))
	start = time.Now()
	c.admit(fourth)
	with := snapshot{}
	for p, what := range want {
		with[p] = what
	}
	mine := c.read(fourth)
	with["own"], with["own/local.xml"] = mine["own"], mine["own/local.xml"]
	c.waitTree(3*time.Minute, want, c.nodes[:3]...)
	eventually(t, 3*time.Minute, "the fourth node has the cluster's files, and its own", func() error {
		got, err := c.reader.read(fourth.tree)
		if err != nil {
			return err
		}
		delete(got, differs.Path) // held as it is, or replaced and kept aside
		w := snapshot{}
		for p, what := range with {
			w[p] = what
		}
		delete(w, differs.Path)
		return w.Differs(got)
	})
	t.Logf("the fourth node was filled after %v", time.Since(start).Round(time.Millisecond))
	fourth.waitHeld(10 * time.Second)
	if err := stands(c.nodes[0].tree, differs.Path, string(differs.Data)); err != nil {
		t.Errorf("a joiner's file went over the cluster's: %v", err)
	}
	fourth.must("approve", "own/local.xml")
	eventually(t, 30*time.Second, "the approved file stands everywhere", func() error {
		return stands(c.nodes[2].tree, "own/local.xml", "only here\n")
	})

	fifth := c.add()
	write(t, fifth.tree, "own5/adopted.xml", "adopted\n")
	c.admit(fifth, "--adopt")
	eventually(t, 2*time.Minute, "the adopted file stands everywhere", func() error {
		for _, n := range c.nodes {
			if err := stands(n.tree, "own5/adopted.xml", "adopted\n"); err != nil {
				return err
			}
		}
		return nil
	})
	c.waitVoters(5)

	// A voter leaves for good.
	gone := c.nodes[1]
	gone.term()
	c.nodes[0].must("remove", gone.name)
	eventually(t, 30*time.Second, "the removed node is no member", func() error {
		s, err := c.nodes[0].status()
		if err != nil {
			return err
		}
		for _, m := range s.Members {
			if m.Name == gone.name {
				return errors.New("it is still listed")
			}
		}
		return nil
	})
	write(t, fourth.tree, "last.xml", "after the removal\n")
	if left := fourth.held(); left > 0 {
		fourth.must("restore")
	}
	eventually(t, 30*time.Second, "writes go on", func() error {
		return stands(fifth.tree, "last.xml", "after the removal\n")
	})
	final := c.waitEqual(2 * time.Minute)
	if got, want := fileCount(final), count+3; got != want {
		t.Errorf("%d files, want %d", got, want)
	}
	if err := stands(fourth.tree, differs.Path, string(differs.Data)); err != nil {
		t.Errorf("after restore: %v", err)
	}
}

// Whoever may not join is told why, and what to do.
func TestPromise_OwnTree_WrongTokens(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	other := newCluster(t, 1)
	first := c.nodes[0]
	good := first.token()
	flip := func(tok string, at int) string {
		b := []byte(tok)
		if b[at]++; b[at] == '9'+1 || b[at] == 'z'+1 || b[at] == 'Z'+1 {
			b[at]--
			b[at]--
		}
		return string(b)
	}
	expired := first.token("--ttl", "1ms")
	used := first.token()
	c.admitWith(t, used)
	tests := []struct {
		name, token, says string
	}{
		{"mistyped", flip(good, len(good)/2), "token"},
		{"cut short", good[:len(good)-3], "token"},
		{"of another cluster", other.nodes[0].token(), "cluster"},
		{"expired", expired, "expired"},
		{"used up", used, "used"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c.in(t)
			n := c.add()
			a := n.ask("join", append([]string{first.addr, "--token", tt.token}, c.joinFlags(n)...)...)
			if a.code != 1 && a.code != 2 || !containsFold(a.stderr, tt.says) {
				t.Errorf("exit code %d: %q; want 1 or 2 and a word on %q", a.code, a.stderr, tt.says)
			}
			t.Logf("%s", a.stderr)
			// It left nothing behind: the right token works in the same directory.
			n.must("join", append([]string{first.addr, "--token", first.token()}, c.joinFlags(n)...)...)
		})
	}
	t.Run("second init", func(t *testing.T) {
		a := first.ask("init", c.joinFlags(first)...)
		if a.code != 1 {
			t.Errorf("beside the daemon: exit code %d: %q", a.code, a.stderr)
		}
		second := c.nodes[1] // has joined, and does not run
		a = second.ask("init", c.joinFlags(second)...)
		t.Logf("%s", a.stderr)
		if a.code != 1 && a.code != 2 || !containsFold(a.stderr, "already") {
			t.Errorf("exit code %d: %q", a.code, a.stderr)
		}
	})
	t.Run("no gatesync at that port", func(t *testing.T) {
		n := c.add()
		a := n.ask("join", append([]string{freeAddr(t), "--token", first.token()}, c.joinFlags(n)...)...)
		if a.code != 1 || !containsFold(a.stderr, "refused") {
			t.Errorf("exit code %d: %q", a.code, a.stderr)
		}
	})
}

// admitWith lets one node join with a given token.
func (c *cluster) admitWith(t *testing.T, token string) {
	t.Helper()
	n := c.add()
	n.must("join", append([]string{c.nodes[0].addr, "--token", token}, c.joinFlags(n)...)...)
}

func containsFold(s, part string) bool {
	return strings.Contains(strings.ToLower(s), strings.ToLower(part))
}
