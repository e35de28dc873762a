package integration

import (
	"fmt"
	"testing"
	"time"
)

// The leader is killed: writes go on within seconds, without an operator.
func TestPromise_Available_LeaderKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	write(t, c.nodes[0].tree, "a.xml", "one\n")
	c.waitEqual(30 * time.Second)
	for round := range 3 {
		old := c.leader(30 * time.Second)
		rest := c.except(old)
		old.kill()
		text := fmt.Sprintf("after kill %d\n", round)
		write(t, rest[0].tree, "a.xml", text)
		took := eventually(t, 15*time.Second, "a write passes without the old leader", func() error {
			return stands(rest[1].tree, "a.xml", text)
		})
		t.Logf("kill %d: the next write stood on the other node after %v", round, took.Round(time.Millisecond))
		old.start()
		eventually(t, 30*time.Second, "the old leader catches up", func() error {
			return stands(old.tree, "a.xml", text)
		})
	}
	c.waitEqual(30 * time.Second)
}

// Two of three are killed: files stay as they are, status says so, local
// edits wait; when one returns they are committed.
func TestPromise_Available_QuorumLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, b, d := c.nodes[0], c.nodes[1], c.nodes[2]
	write(t, b.tree, "kept.xml", "before\n")
	write(t, b.tree, "gone.xml", "before\n")
	c.waitEqual(30 * time.Second)
	b.kill()
	d.kill()
	eventually(t, 30*time.Second, "status says that there is no quorum", func() error {
		s, err := a.status()
		if err == nil && s.Leader != "" {
			err = fmt.Errorf("it names a leader: %s", s.Leader)
		}
		return err
	})
	write(t, a.tree, "kept.xml", "edited alone\n")
	write(t, a.tree, "sub/new.xml", "new alone\n")
	remove(t, a.tree, "gone.xml")
	if got := a.ask("wait", "--timeout", "5s"); got.code != 5 {
		t.Errorf("wait without a quorum: exit code %d, want 5: %s%s", got.code, got.stdout, got.stderr)
	}
	if err := stands(a.tree, "kept.xml", "edited alone\n"); err != nil {
		t.Errorf("an edit without a quorum was thrown away: %v", err)
	}
	if err := stands(b.tree, "kept.xml", "before\n"); err != nil {
		t.Error(err)
	}
	b.start()
	took := eventually(t, 30*time.Second, "the edits are committed", func() error {
		for path, want := range map[string]string{"kept.xml": "edited alone\n", "sub/new.xml": "new alone\n", "gone.xml": ""} {
			if err := stands(b.tree, path, want); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("committed %v after the second node was back", took.Round(time.Millisecond))
	d.start()
	c.waitEqual(30 * time.Second)
}
