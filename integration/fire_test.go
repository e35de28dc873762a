package integration

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// Joins, removals and kills of the leader happen at the same time, while two
// gateways are written to without a pause. All that was written stands on all
// that are left, every voter holds all content, and the cluster is the better for
// none of it.
func TestPromise_NoLoss_MembershipUnderFire(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, b := c.nodes[0], c.nodes[1] // written to, and so never removed
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writing sync.WaitGroup
	written := make([]int, 2)
	for w, n := range []*node{a, b} {
		writing.Go(func() {
			for ; ctx.Err() == nil; written[w]++ {
				i := written[w]
				// New files, and one that is overwritten: its history is content too.
				err := writeFile(n.tree, fmt.Sprintf("by-%d/%d.xml", w, i), fmt.Sprintf("writer %d, file %d\n", w, i))
				if err == nil {
					err = writeFile(n.tree, fmt.Sprintf("by-%d/counter.xml", w), fmt.Sprintf("%d\n", i))
				}
				if err != nil {
					t.Error(err)
					return
				}
				_ = sleep(ctx, 20*time.Millisecond)
			}
		})
	}

	rounds := size(2, 12)
	for round := range rounds {
		// At the same time: one joins, the leader dies, another one is removed.
		var old *node
		for _, n := range c.running() {
			if n != a && n != b && old == nil {
				old = n
			}
		}
		newcomer := c.add()
		token := a.token()
		leader := c.leader(30 * time.Second)
		var together sync.WaitGroup
		together.Go(func() {
			err := poll(ctx, 60*time.Second, func() error {
				via := a
				if leader == a {
					via = b
				}
				if got := newcomer.ask("join", append([]string{via.addr, "--token", token}, c.joinFlags(newcomer)...)...); got.code != 0 {
					return fmt.Errorf("join: exit code %d: %s", got.code, got.stderr)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		if leader == old {
			leader = a
		}
		asked := b
		if leader == b {
			asked = a
		}
		together.Go(func() {
			err := poll(ctx, 60*time.Second, func() error {
				got := asked.ask("remove", old.name)
				if got.code == 0 || strings.Contains(got.stderr, "no member is called") { // it was removed, and the answer was lost
					return nil
				}
				return fmt.Errorf("remove: exit code %d: %s", got.code, got.stderr)
			})
			if err != nil {
				t.Error(err)
			}
		})
		if err := sleep(ctx, 30*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		leader.kill()
		// Its gateway goes on writing. It comes back while all that is under way.
		if err := sleep(ctx, 300*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		leader.start()
		together.Wait()
		if t.Failed() {
			return
		}
		old.term()
		newcomer.start()
		c.waitVoters(3)
		t.Logf("round %d: %s joined, %s was killed and came back, %s was removed", round, newcomer.name, leader.name, old.name)
	}
	cancel()
	writing.Wait()
	tree := c.waitEqual(60 * time.Second)
	for w := range written {
		for i := range written[w] {
			if tree[fmt.Sprintf("by-%d/%d.xml", w, i)] == "" {
				t.Errorf("file %d of writer %d is lost", i, w)
			}
		}
		if err := stands(a.tree, fmt.Sprintf("by-%d/counter.xml", w), fmt.Sprintf("%d\n", written[w]-1)); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d files written", fileCount(tree))
	for _, n := range c.running() {
		if left := n.conflicts(); len(left) > 0 {
			t.Errorf("%s has conflicts where nobody wrote the same file: %v", n.name, left)
		}
	}
	c.waitContent(c.running()...)
}
