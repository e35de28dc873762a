package integration

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// soak is one cluster under load to which one thing after the other happens.
type soak struct {
	t     *testing.T
	c     *cluster
	h     *hosts // nil without root
	l     *workload
	rng   *rand.Rand
	kills int
	done  map[string]int // by scenario
}

// soakScenarios are what may happen, each with its weight. Each ends with
// everything running and whole again.
var soakScenarios = []struct {
	name   string
	weight int
	root   bool
	do     func(*soak)
}{
	{"kills", 10, false, func(s *soak) {
		for range 3 + s.rng.IntN(5) {
			s.kills += killSome(s.c, s.rng)
		}
	}},
	{"stop", 3, false, func(s *soak) {
		n := s.node()
		signal(s.t, n, syscall.SIGSTOP)
		s.pause(6 * time.Second)
		signal(s.t, n, syscall.SIGCONT)
	}},
	{"stop two", 1, false, func(s *soak) {
		a, b := s.two()
		signal(s.t, a, syscall.SIGSTOP)
		s.pause(time.Second)
		signal(s.t, b, syscall.SIGSTOP)
		s.pause(5 * time.Second)
		signal(s.t, a, syscall.SIGCONT)
		s.pause(time.Second)
		signal(s.t, b, syscall.SIGCONT)
	}},
	{"restart", 3, false, func(s *soak) { // hands leadership over
		n := s.node()
		n.term()
		s.pause(2 * time.Second)
		n.launch()
	}},
	{"partition", 4, true, func(s *soak) {
		s.part(s.node())
		s.pause(8 * time.Second)
		s.h.mendAll()
	}},
	{"flapping", 2, true, func(s *soak) {
		n := s.c.host(s.node())
		for range 3 + s.rng.IntN(10) {
			s.h.cut(n)
			s.pause(time.Second)
			s.h.mend(n)
			s.pause(time.Second)
		}
	}},
	{"kills in a partition", 4, true, func(s *soak) {
		s.part(s.node())
		for range 1 + s.rng.IntN(3) {
			s.kills += killSome(s.c, s.rng)
		}
		s.h.mendAll()
	}},
	{"full data directory", 2, true, func(s *soak) {
		empty := fill(s.t, s.node().data, 0)
		s.pause(6 * time.Second)
		empty()
	}},
	{"kills with a full data directory", 1, true, func(s *soak) {
		empty := fill(s.t, s.node().data, 0)
		s.kills += killSome(s.c, s.rng)
		s.pause(time.Second)
		empty()
	}},
	{"full tree", 2, true, func(s *soak) {
		empty := fill(s.t, diskOf(s.node()), 0)
		s.pause(6 * time.Second)
		empty()
	}},
	{"read-only tree", 1, true, func(s *soak) {
		n := s.node()
		// Busy while a writer has a file open: then it does not happen this time.
		if unix.Mount("", diskOf(n), "", unix.MS_REMOUNT|unix.MS_RDONLY, "") == nil {
			s.pause(5 * time.Second)
			remount(s.t, diskOf(n), 0)
		}
	}},
	{"frozen data directory", 2, true, func(s *soak) {
		thaw := freeze(s.t, s.node().data)
		s.pause(10 * time.Second)
		thaw()
	}},
}

func (s *soak) node() *node { return s.c.nodes[s.rng.IntN(len(s.c.nodes))] }

func (s *soak) two() (a, b *node) {
	p := s.rng.Perm(len(s.c.nodes))
	return s.c.nodes[p[0]], s.c.nodes[p[1]]
}

func (s *soak) pause(most time.Duration) {
	_ = sleep(s.t.Context(), time.Duration(s.rng.Int64N(int64(most))))
}

// part cuts a node off from one other or from all, in both directions or one.
func (s *soak) part(n *node) {
	one := s.rng.IntN(3) == 0
	way := s.rng.IntN(3)
	for _, m := range s.c.except(n) {
		if way != 0 {
			s.h.deafen(s.c.host(n), s.c.host(m))
		}
		if way != 1 {
			s.h.deafen(s.c.host(m), s.c.host(n))
		}
		if one {
			return
		}
	}
}

// boot makes a cluster whose nodes have hosts and small disks of their own,
// where this test is root.
func (s *soak) boot() {
	s.c = emptyCluster(s.t)
	s.c.keep = true
	if os.Getuid() == 0 {
		s.h = newHosts(s.t)
		h := s.h
		s.c.undo = append(s.c.undo, h.close)
		s.c.place = func(n *node) {
			h.add(n)
			s.c.mountLoop(n.data, 4096)
			root := filepath.Join(filepath.Dir(n.data), "disk")
			s.c.mountTmpfs(root, 384)
			n.tree = filepath.Join(root, "tree")
			n.vars = []string{"GATESYNC_FREE_RESERVE=16MB"}
		}
	}
	s.c.boot(3)
	s.l = startLoad(s.c, s.rng.Uint64(), 120*time.Millisecond)
}

// end takes the cluster down, so that the next one begins on empty disks.
func (s *soak) end() {
	s.l.halt()
	s.c.close()
	s.c.nodes, s.c.undo = nil, nil
}

func (s *soak) round(n int) {
	total := 0
	for _, sc := range soakScenarios {
		if !sc.root || s.h != nil {
			total += sc.weight
		}
	}
	pick := s.rng.IntN(total)
	for _, sc := range soakScenarios {
		if sc.root && s.h == nil {
			continue
		}
		if pick -= sc.weight; pick >= 0 {
			continue
		}
		start := time.Now()
		sc.do(s)
		broken := time.Since(start)
		finish(s.c, s.l, 3*time.Minute)
		s.done[sc.name]++
		s.t.Logf("%s round %d: %s for %v, whole again after %v; %d kills so far, %d writes, %d reads", time.Now().Format(time.TimeOnly),
			n, sc.name, broken.Round(time.Millisecond), (time.Since(start) - broken).Round(time.Millisecond), s.kills, s.l.writes.Load(), s.l.reads.Load())
		return
	}
}

// Everything that can happen to a cluster happens to it in random order, under
// load, for GATESYNC_SOAK (`make soak-procs`: an hour), or for a few rounds.
// After each round nothing is lost, all trees are equal, and no reader has seen
// half a file. A finding leaves the cluster behind and tells how to play it
// again.
func TestPromise_NoLoss_Soak(t *testing.T) {
	t.Parallel()
	var limit time.Duration
	if v := os.Getenv("GATESYNC_SOAK"); v != "" {
		var err error
		if limit, err = time.ParseDuration(v); err != nil {
			t.Fatalf("GATESYNC_SOAK: %v", err)
		}
	}
	if os.Getuid() != 0 {
		t.Log("not root: no partitions and no disks, only what happens to processes")
	}
	const roundsEach = 40 // by one cluster: its history fills its disk
	seed := seedOf(t)
	s := &soak{t: t, done: map[string]int{}}
	begin, round := time.Now(), 0
	for life := uint64(0); ; life++ {
		s.rng = rand.New(rand.NewPCG(seed+life, 2))
		t.Logf("cluster %d: play it again with GATESYNC_SEED=%d make soak-procs", life+1, seed+life)
		s.boot()
		t.Cleanup(s.l.halt)
		for range roundsEach {
			if limit == 0 && round == size(1, 10) || limit > 0 && time.Since(begin) > limit {
				t.Logf("%d rounds in %v: %d kills; %v", round, time.Since(begin).Round(time.Second), s.kills, s.done)
				if limit >= time.Hour && s.kills < 1000 {
					t.Errorf("%d kills in an hour are too few to say that nothing is lost", s.kills)
				}
				s.l.halt()
				return
			}
			round++
			s.round(round)
		}
		s.end()
	}
}
