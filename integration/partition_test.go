package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Partitions of every form, on hosts with a network of their own. The side with
// a majority goes on; what the other side writes waits, and is there for all
// once the partition ends.
func TestPromise_Available_Partitions(t *testing.T) {
	t.Parallel()
	c, h := newHostCluster(t, 3)
	write(t, c.nodes[0].tree, "begin.xml", "begin\n")
	c.waitEqual(30 * time.Second)
	others := func(n *node) (hosts []int) {
		for _, m := range c.except(n) {
			hosts = append(hosts, c.host(m))
		}
		return hosts
	}
	deaf := func(n *node) { // it can send, and hears nobody
		for _, o := range others(n) {
			h.deafen(c.host(n), o)
		}
	}
	mute := func(n *node) { // it hears, and nobody hears it
		for _, o := range others(n) {
			h.deafen(o, c.host(n))
		}
	}
	alone := func(n *node) { h.cut(c.host(n)) }
	for _, tt := range []struct {
		name     string
		ofLeader bool
		part     func(*node)
	}{
		{"LeaderAlone", true, alone}, {"LeaderDeaf", true, deaf}, {"LeaderMute", true, mute},
		{"FollowerAlone", false, alone}, {"FollowerDeaf", false, deaf}, {"FollowerMute", false, mute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.in(t)
			n := c.leader(30 * time.Second)
			if !tt.ofLeader {
				n = c.except(n)[0]
			}
			partition(t, c, n, tt.part, h.mendAll)
		})
	}
	t.Run("TwoApart", func(t *testing.T) { // leader and one follower; the third hears both
		c.in(t)
		lead := c.leader(30 * time.Second)
		f, third := c.except(lead)[0], c.except(lead)[1]
		h.deafen(c.host(lead), c.host(f))
		h.deafen(c.host(f), c.host(lead))
		write(t, third.tree, "apart.xml", "written on the third\n")
		took := eventually(t, 15*time.Second, "a write passes between the leader and the third", func() error {
			return stands(lead.tree, "apart.xml", "written on the third\n")
		})
		write(t, f.tree, "apart-own.xml", "written apart\n")
		h.mendAll()
		back := heal(t, c, map[string]string{"apart.xml": "written on the third\n", "apart-own.xml": "written apart\n"})
		t.Logf("a write took %v while two were apart; all was equal %v after", took.Round(time.Millisecond), back.Round(time.Millisecond))
	})
	t.Run("Flapping", func(t *testing.T) {
		c.in(t)
		n := c.leader(30 * time.Second)
		rest := c.except(n)
		var slowest time.Duration
		want := map[string]string{}
		for i := range size(3, 40) {
			path, text := fmt.Sprintf("flap%d.xml", i), fmt.Sprintf("flap %d\n", i)
			h.cut(c.host(n))
			want[path], want["own-"+path] = text, text
			write(t, rest[0].tree, path, text)
			write(t, n.tree, "own-"+path, text)
			slowest = max(slowest, eventually(t, 20*time.Second, "a write passes beside a node that comes and goes", func() error {
				return stands(rest[1].tree, path, text)
			}))
			h.mend(c.host(n))
			_ = sleep(t.Context(), time.Duration(100+150*i%700)*time.Millisecond)
		}
		back := heal(t, c, want)
		t.Logf("the slowest write took %v; all was equal %v after", slowest.Round(time.Millisecond), back.Round(time.Millisecond))
	})
}

// partition cuts a node off in some way while both sides write, ends it, and
// looks at what came of it.
func partition(t *testing.T, c *cluster, n *node, part func(*node), mend func()) {
	rest := c.except(n)
	tag := strings.ReplaceAll(t.Name()[strings.LastIndex(t.Name(), "/")+1:], " ", "_")
	both, own, theirs := tag+"-both.xml", tag+"-own.xml", tag+"-theirs.xml"
	write(t, rest[0].tree, both, "before\n")
	c.waitEqual(30 * time.Second)
	was := len(n.conflicts())
	elected, over := elections(rest), make(chan struct{})
	flush := flushing(c.dir, over)
	part(n)
	write(t, rest[0].tree, theirs, "theirs\n")
	write(t, rest[0].tree, both, "theirs\n")
	took := eventually(t, 15*time.Second, "a write passes on the side of the majority", func() error {
		if err := stands(rest[1].tree, both, "theirs\n"); err != nil {
			return err
		}
		return stands(rest[1].tree, theirs, "theirs\n")
	})
	eventually(t, 15*time.Second, "the node that is cut off says that it has no quorum", func() error {
		if a := n.ask("status"); a.code != 5 || !strings.Contains(a.stdout, "no quorum") {
			return fmt.Errorf("status: exit code %d:\n%s%s", a.code, a.stdout, a.stderr)
		}
		return nil
	})
	// One that nobody hears may have heard of theirs, and have been sent it: then what
	// is written now is an edit of it, and the newest.
	winner, lost := "theirs\n", 1
	if stands(n.tree, both, "theirs\n") == nil {
		winner, lost = "own\n", 0
		t.Logf("%s has heard of theirs", n.name)
	}
	write(t, n.tree, own, "own\n")
	write(t, n.tree, both, "own\n")
	_ = sleep(t.Context(), size(300*time.Millisecond, 10*time.Second))
	if err := stands(rest[0].tree, own, ""); err != nil {
		t.Errorf("a write of the minority was committed: %v", err)
	}
	if err := stands(n.tree, both, "own\n"); err != nil {
		t.Errorf("a write of the minority did not wait: %v", err)
	}
	close(over)
	if more, stall := elections(rest)-elected, <-flush; more > 2*len(rest)+2 {
		if stall < 500*time.Millisecond { // else it was the machine: an election's time-out is a second
			t.Errorf("the majority has seen %d changes of leader", more)
		}
		t.Logf("the majority has seen %d changes of leader; a flush took up to %v", more, stall)
	}
	mend()
	back := heal(t, c, map[string]string{both: winner, own: "own\n", theirs: "theirs\n"})
	losers := n.conflicts()
	kept := lost == 0
	for id, path := range losers {
		kept = kept || path == both && n.must("conflicts", "show", id) == "own\n"
	}
	if !kept || len(losers) != was+lost {
		t.Errorf("what the minority wrote to %s is not kept aside: %v", both, losers)
	}
	t.Logf("a write took %v; all was equal %v after the partition", took.Round(time.Millisecond), back.Round(time.Millisecond))
}

// heal waits until all nodes hold these contents, and equal trees.
func heal(t *testing.T, c *cluster, want map[string]string) time.Duration {
	t.Helper()
	start := time.Now()
	eventually(t, 60*time.Second, "all writes stand everywhere", func() error {
		for _, n := range c.nodes {
			for path, text := range want {
				if err := stands(n.tree, path, text); err != nil {
					return err
				}
			}
		}
		return nil
	})
	took := time.Since(start)
	c.waitEqual(30 * time.Second)
	return took
}

// elections counts the leaders that nodes have told of.
func elections(nodes []*node) (count int) {
	for _, n := range nodes {
		count += strings.Count(n.logTail(1<<20), "the log has a leader")
	}
	return count
}
