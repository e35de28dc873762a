package integration

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// seedOf returns the seed of a test's dice: GATESYNC_SEED, or a new one. It is
// printed, so that a failure can be tried again.
func seedOf(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64N(1 << 32)
	if s := os.Getenv("GATESYNC_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("GATESYNC_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("GATESYNC_SEED=%d", seed)
	return seed
}

// killSome kills one to all of the nodes in a random moment, also in the middle
// of their start, and starts them again. It returns how many it killed.
func killSome(c *cluster, rng *rand.Rand) int {
	c.t.Helper()
	dead := rng.Perm(len(c.nodes))[:1+max(0, rng.IntN(len(c.nodes)+2)-2)]
	pause := func(most time.Duration) { _ = sleep(c.t.Context(), time.Duration(rng.Int64N(int64(most)))) }
	pause(600 * time.Millisecond)
	for _, i := range dead {
		c.nodes[i].kill()
	}
	pause(300 * time.Millisecond)
	kills := len(dead)
	for _, i := range dead {
		c.nodes[i].launch()
		if rng.IntN(4) == 0 { // and once more while it starts
			pause(150 * time.Millisecond)
			c.nodes[i].kill()
			c.nodes[i].launch()
			kills++
		}
	}
	return kills
}

// finish waits for all nodes and checks what came of the load.
func finish(c *cluster, l *workload, limit time.Duration) {
	c.t.Helper()
	for _, n := range c.nodes {
		n.answers()
	}
	if err := l.check(limit); err != nil {
		c.t.Fatal(err)
	}
	for _, n := range c.nodes {
		if log := n.logTail(1 << 20); strings.Contains(log, "panic:") || strings.Contains(log, "DATA RACE") {
			c.t.Fatalf("%s panicked: see its log", n.name)
		}
	}
}

// Daemons are killed at random moments, one, two and all at once, while every
// gateway writes: nothing that stood is lost, no reader sees half a file, and
// all trees become equal.
func TestPromise_NoLoss_KilledAtRandom(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(seedOf(t), 1))
	c := newCluster(t, 3)
	l := startLoad(c, rng.Uint64(), 40*time.Millisecond)
	t.Cleanup(l.halt)
	kills, want := 0, size(15, 150)
	for kills < want {
		kills += killSome(c, rng)
	}
	finish(c, l, time.Minute)
	t.Logf("%d kills, %d writes, %d reads", kills, l.writes.Load(), l.reads.Load())
}

// A daemon stands still for longer than the election timeout (a paused virtual
// machine, a debugger), the leader and a follower: the others go on without it,
// and when it goes on it does not lead by mistake.
func TestPromise_Available_StoppedAndContinued(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	l := startLoad(c, seedOf(t), 60*time.Millisecond)
	t.Cleanup(l.halt)
	for round := range 2 {
		n := c.leader(30 * time.Second)
		if round == 1 {
			n = c.except(n)[0]
		}
		rest := c.except(n)
		signal(t, n, syscall.SIGSTOP)
		mark := "round " + strconv.Itoa(round)
		write(t, rest[0].tree, "mark.xml", mark)
		took := eventually(t, 15*time.Second, "a write passes while a node stands still", func() error {
			return stands(rest[1].tree, "mark.xml", mark)
		})
		_ = sleep(t.Context(), max(0, 4*time.Second-took)) // longer than any time-out of Raft
		signal(t, n, syscall.SIGCONT)
		back := eventually(t, 15*time.Second, "the node catches up", func() error { return stands(n.tree, "mark.xml", mark) })
		t.Logf("%s: a write took %v while it stood still; it had caught up %v after going on", mark,
			took.Round(time.Millisecond), back.Round(time.Millisecond))
	}
	finish(c, l, time.Minute)
}

// signal sends one to a node's daemon. One that stands still goes on at the end
// of the test, whatever happens.
func signal(t testing.TB, n *node, s syscall.Signal) {
	t.Helper()
	daemon := n.daemon.Process
	if err := daemon.Signal(s); err != nil {
		t.Fatal(err)
	}
	if s == syscall.SIGSTOP {
		t.Cleanup(func() { _ = daemon.Signal(syscall.SIGCONT) })
	}
}
