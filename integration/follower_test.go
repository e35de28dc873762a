package integration

import (
	"fmt"
	"testing"
	"time"
)

// A gateway behind a firewall that lets nothing in: as a follower it reads,
// writes and is seen, through connections that it dials itself. Its parent's
// death costs it seconds.
func TestPromise_Available_FollowerBehindAFirewall(t *testing.T) {
	t.Parallel()
	c, h := newHostCluster(t, 3)
	write(t, c.nodes[0].tree, "begin.xml", "begin\n")
	first := c.nodes[0]
	first.waitFormat(2, 2)
	f := c.add()
	h.nft(c.host(f), "add rule inet part i ct state established,related accept\nadd rule inet part i iif lo accept\nadd rule inet part i drop\n")
	c.admit(f, "--follower")
	stand := func(name, text string, nodes ...*node) {
		t.Helper()
		eventually(t, time.Minute, name+" stands everywhere", func() error {
			for _, n := range nodes {
				if err := stands(n.tree, name, text); err != nil {
					return fmt.Errorf("%s: %w", n.name, err)
				}
			}
			return nil
		})
	}
	stand("begin.xml", "begin\n", f)
	write(t, f.tree, "below.xml", "from behind the firewall\n")
	stand("below.xml", "from behind the firewall\n", c.nodes...)
	first.waits()
	f.waits()
	seen := func(by *node) error {
		s, err := by.status()
		for _, m := range s.Members {
			if m.Name == f.name && m.Alive && m.Role == "follower" {
				return nil
			}
		}
		return fmt.Errorf("%s does not see it: %+v, %v", by.name, s.Members, err)
	}
	for _, n := range c.nodes {
		eventually(t, 30*time.Second, "the follower is seen by all", func() error { return seen(n) })
	}
	// Each member dies in turn, its parent among them.
	for i, n := range c.nodes[:3] {
		n.kill()
		name, text := fmt.Sprintf("turn-%d.xml", i), fmt.Sprintf("while %s is dead\n", n.name)
		left := c.except(n)
		write(t, left[0].tree, name, text)
		stand(name, text, left...)
		n.start()
		stand(name, text, n)
	}
}
