package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A site with two gateways: the third voter is a witness, which has no tree.
// Either gateway, or the witness, may fail.
func TestPromise_Available_TwoGatewaysAndAWitness(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	a := c.nodes[0]
	write(t, a.tree, "old.xml", "before the witness\n")
	b := c.join()
	witness := c.add()
	witness.tree = ""
	if got := witness.ask("join", a.addr, "--token", a.token(), "--name", witness.name); got.code != 2 || !strings.Contains(got.stderr, "--witness") {
		t.Errorf("join with neither a tree nor --witness: exit code %d: %s", got.code, got.stderr)
	}
	c.admit(witness)
	c.waitVoters(3)
	for _, n := range c.nodes {
		n.tells("members", "witness", "1 more voter may fail")
	}
	if s := witness.must("status"); !strings.Contains(s, "this node is a witness") {
		t.Errorf("status of the witness:\n%s", s)
	}
	c.waitEqual(30 * time.Second)

	// A gateway fails: the other one still writes, with the witness's receipt.
	b.kill()
	for i := range 20 {
		write(t, a.tree, fmt.Sprintf("alone/%d.xml", i), fmt.Sprintf("without %s, %d\n", b.name, i))
	}
	c.settled(a, 30*time.Second)
	// The witness is how the returner gets them: their author is gone.
	a.kill()
	b.start()
	took := eventually(t, 30*time.Second, "the witness brings it all to the other gateway", func() error {
		for i := range 20 {
			if err := stands(b.tree, fmt.Sprintf("alone/%d.xml", i), fmt.Sprintf("without %s, %d\n", b.name, i)); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("the other gateway had it from the witness after %v", took.Round(time.Millisecond))
	write(t, b.tree, "from-b.xml", "with the witness alone\n")
	c.settled(b, 30*time.Second)
	a.start()
	c.waitEqual(30 * time.Second)

	// The witness fails: the gateways write.
	witness.kill()
	write(t, a.tree, "old.xml", "without the witness\n")
	eventually(t, 30*time.Second, "writes without the witness", func() error {
		return stands(b.tree, "old.xml", "without the witness\n")
	})
	witness.start()
	c.waitEqual(30 * time.Second)
	c.waitContent(witness)
}

// tells waits until a command says all of these words.
func (n *node) tells(verb string, words ...string) {
	n.t.Helper()
	eventually(n.t, 30*time.Second, fmt.Sprintf("%s on %s tells %q", verb, n.name, words), func() error {
		a := n.ask(verb)
		for _, w := range words {
			if a.code != 0 || !strings.Contains(a.stdout, w) {
				return fmt.Errorf("exit code %d:\n%s%s", a.code, a.stdout, a.stderr)
			}
		}
		return nil
	})
}

// settled waits until what was written on a node is committed.
func (c *cluster) settled(n *node, limit time.Duration) {
	c.t.Helper()
	eventually(c.t, limit, n.name+"'s writes are committed", func() error {
		if a := n.ask("wait", "--timeout", "5s"); a.code != 0 {
			return fmt.Errorf("wait on %s: exit code %d: %s%s", n.name, a.code, a.stdout, a.stderr)
		}
		return nil
	})
}

// waitContent waits until the nodes hold all content, of every revision.
func (c *cluster) waitContent(nodes ...*node) {
	c.t.Helper()
	eventually(c.t, 60*time.Second, "all content is where it should be", func() error {
		for _, n := range nodes {
			s, err := n.status()
			if err != nil {
				return err
			}
			for _, m := range s.Members {
				if m.Name == n.name && m.Content < s.Revision {
					return fmt.Errorf("%s holds the content up to revision %d of %d", n.name, m.Content, s.Revision)
				}
			}
		}
		return nil
	})
}

// All nodes are stopped, and come back on other ports: the same cluster, and no
// file was edited.
func TestPromise_Converge_AllAddressesChange(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	write(t, c.nodes[1].tree, "before.xml", "x\n")
	want := c.waitEqual(30 * time.Second)
	before, err := c.nodes[0].status()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		n.term()
	}
	for _, n := range c.nodes {
		n.addr = freeAddr(t)
	}
	for _, n := range c.nodes { // one seed for all; for the first it is itself
		n.args = []string{"--listen", n.addr, "--seed", c.nodes[0].addr}
		n.start()
	}
	c.waitVoters(3)
	c.waitTree(30*time.Second, want)
	write(t, c.nodes[2].tree, "after.xml", "y\n")
	c.waitEqual(30 * time.Second)
	for _, n := range c.nodes {
		eventually(t, 30*time.Second, n.name+" sees all where they are", func() error {
			s, err := n.status()
			if err != nil {
				return err
			}
			for i, m := range s.Members {
				j := slices.IndexFunc(c.nodes, func(n *node) bool { return n.name == m.Name })
				if m.ID != before.Members[i].ID || m.Address != c.nodes[j].addr {
					return fmt.Errorf("it sees %s at %s, as %s; it was %+v", m.Name, m.Address, m.ID, before.Members[i])
				}
			}
			return nil
		})
	}
	// One that missed it all learns from whom it still finds: nobody, but the seed.
	last := c.nodes[2]
	last.term()
	for _, n := range c.nodes[:2] {
		n.term()
		n.addr = freeAddr(t)
		n.args = []string{"--listen", n.addr, "--seed", last.addr}
	}
	last.args = []string{"--listen", last.addr}
	last.start() // it knows nobody's address, and is asked
	for _, n := range c.nodes[:2] {
		n.start()
	}
	c.waitVoters(3)
	write(t, c.nodes[0].tree, "again.xml", "z\n")
	c.waitEqual(30 * time.Second)
}

// What an operator says about votes happens, sticks, and is refused with the
// reason where it would do harm.
func TestPromise_Available_MembersByHand(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	fourth := c.join()
	c.waitContent(fourth)
	a := c.nodes[0]

	// It stays a non-voter by itself: four voters tolerate no more than three.
	if got := c.role(a, fourth); got != "nonvoter" {
		t.Fatalf("the fourth is a %s", got)
	}
	var said map[string]string
	if err := json.Unmarshal([]byte(a.must("promote", "--json", fourth.name)), &said); err != nil || said["chosen"] != "voter" || said["id"] == "" {
		t.Errorf("promote --json: %v %v", said, err)
	}
	c.waitVoters(4)
	if s := c.nodes[1].must("members"); !strings.Contains(s, "voter (chosen)") {
		t.Errorf("members:\n%s", s)
	}
	// A leader that is to go hands over first. From a node that is not asked.
	old := c.leader(30 * time.Second)
	c.except(old)[0].must("demote", old.name)
	next := c.leader(30 * time.Second)
	if next == old || c.role(next, old) != "nonvoter" {
		t.Fatalf("%s leads, and %s is a %s", next.name, old.name, c.role(next, old))
	}
	write(t, old.tree, "by-a-nonvoter.xml", "x\n")
	c.waitEqual(30 * time.Second)

	to := c.nodes[slices.IndexFunc(c.nodes, func(n *node) bool { return n != next && n != old })]
	// A busy machine may elect another one right after, but not each time.
	handed := func(want string, to *node, ok func(leader *node) bool) {
		t.Helper()
		var got *node
		for range 5 {
			words := []string{}
			if to != nil {
				words = append(words, to.name)
			}
			if out := old.must("transfer", words...); to != nil && !strings.Contains(out, to.name+" leads") {
				t.Errorf("transfer: %s", out)
			}
			if got = c.leader(30 * time.Second); ok(got) {
				return
			}
		}
		t.Errorf("%s leads, want %s", got.name, want)
	}
	handed(to.name, to, func(leader *node) bool { return leader == to })
	handed("anyone but "+to.name, nil, func(leader *node) bool { return leader != to })

	refuse := func(says string, verb string, args ...string) {
		t.Helper()
		if got := a.ask(verb, args...); got.code != 1 || !strings.Contains(got.stderr, says) {
			t.Errorf("%s %q: exit code %d: %s; want a word on %q", verb, args, got.code, got.stderr, says)
		}
	}
	refuse("no member is called", "promote", "gw9")
	refuse("no member is called", "transfer", "gw9")
	refuse("does not vote", "transfer", old.name)
	old.term()
	if a == old {
		a = c.running()[0]
	}
	refuse("does not answer", "promote", old.name)
	// With one of the three voters dead, another one cannot be spared: not even
	// right after that death, when nobody has missed the dead one yet.
	lead := c.leader(30 * time.Second)
	dead := c.except(lead)[0]
	dead.kill()
	a = lead
	refuse("without it only 1 of 2 voters are alive", "demote", c.except(lead)[0].name)
	dead.start()
	old.start()
	a.must("demote", "--auto", old.name)
	a.must("promote", "--auto", fourth.name)
	c.waitVoters(3)
	write(t, dead.tree, "last.xml", "y\n")
	c.waitEqual(30 * time.Second)
}

// role is what one node says that another is.
func (c *cluster) role(asked, of *node) string {
	c.t.Helper()
	s, err := asked.status()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, m := range s.Members {
		if m.Name == of.name {
			return m.Role
		}
	}
	return ""
}

// A voter dies and does not come back: a member that is ready takes its vote,
// so that the next failure costs nothing. The dead one stays a member.
func TestPromise_Available_DeadVoterIsReplaced(t *testing.T) {
	t.Parallel()
	c := emptyCluster(t)
	c.place = func(n *node) { n.vars = append(n.vars, "GATESYNC_REAP_AFTER=10s") }
	c.boot(3)
	spare := c.join()
	write(t, c.nodes[0].tree, "a.xml", "one\n")
	c.waitEqual(30 * time.Second)
	c.waitContent(spare)
	dead := c.nodes[0]
	dead.kill()
	took := eventually(t, 40*time.Second, "the spare node votes instead of the dead one", func() error {
		if d, s := c.role(spare, dead), c.role(spare, spare); d != "nonvoter" || s != "voter" {
			return fmt.Errorf("the dead one is a %s, the spare one a %s", d, s)
		}
		return nil
	})
	t.Logf("replaced %v after it died", took.Round(time.Millisecond))
	spare.tells("members", "1 more voter may fail")
	// So one more may fail.
	c.nodes[1].kill()
	write(t, c.nodes[2].tree, "a.xml", "two\n")
	eventually(t, 30*time.Second, "writes after the second death", func() error {
		return stands(spare.tree, "a.xml", "two\n")
	})
	dead.start()
	c.nodes[1].start()
	c.waitEqual(30 * time.Second)
}
