package raftstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func TestBootstrapBeginsALogOnce(t *testing.T) {
	c := newTestCluster(t)
	s := c.found(1)[0]
	if id, _, _ := s.Cluster(); id != "c-1" {
		t.Fatalf("cluster %q", id)
	}
	if m := s.Members(); len(m) != 1 || m[0].ID != "n-1" || m[0].Role != cluster.Voter {
		t.Fatalf("members %+v", m)
	}
	c.close(s)
	if err := Bootstrap(c.config("n-1"), &pb.InitCluster{ClusterId: "c-2"}, member("n-1")); !errors.Is(err, ErrExists) {
		t.Fatalf("a second bootstrap: %v", err)
	}
}

func TestPromise_Order_ProposalsFromEveryNode(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	var group sync.WaitGroup
	var mu sync.Mutex
	seen := map[manifest.Revision]string{}
	for i, s := range stores {
		for j := range 20 {
			group.Go(func() {
				name := fmt.Sprintf("d-%d-%d", i, j)
				r, err := s.Propose(c.ctx(), makeDir(name))
				mu.Lock()
				defer mu.Unlock()
				if err != nil || len(r.Refused) > 0 || seen[r.Revision] != "" {
					t.Errorf("%s: %+v, %v; the revision is also %q", name, r, err, seen[r.Revision])
				}
				seen[r.Revision] = name
			})
		}
	}
	group.Wait()
	c.agree(stores...)
	if rev := stores[2].Revision(); rev != 60 {
		t.Fatalf("revision %d, want 60", rev)
	}
	for _, commit := range stores[1].History("server", 0, 100) {
		if seen[commit.Revision] != string(commit.Changes[0].Path) {
			t.Fatalf("revision %d made %q, its proposer was told %q", commit.Revision, commit.Changes[0].Path, seen[commit.Revision])
		}
	}
}

func TestPromise_Available_WhenTheLeaderDies(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	old, others := c.leader(stores)
	proposer := others[0]

	// A stream of proposals from a follower, through the leader's death.
	const n = 40
	results := make(chan error, n)
	half := make(chan struct{})
	go func() {
		for i := range n {
			if i == n/4 {
				close(half)
			}
			r, err := proposer.Propose(c.ctx(), makeDir(fmt.Sprint("d", i)))
			if err == nil && (len(r.Refused) > 0 || r.Revision == 0) {
				err = fmt.Errorf("d%d: %+v", i, r) // applied twice, or not at all
			}
			results <- err
		}
	}()
	<-half
	c.net.cut(old.cfg.ID, true)
	for range n {
		c.must(<-results)
	}
	if proposer.Revision() > n {
		t.Fatalf("revision %d after %d proposals", proposer.Revision(), n)
	}
	c.net.cut(old.cfg.ID, false)
	c.agree(stores...)
	if rev := old.Revision(); rev != n {
		t.Fatalf("revision %d after %d proposals: one was applied twice or never", rev, n)
	}
}

func TestTheSameIDAppliesOnce(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	cs := makeDir("d")
	cs.ID = manifest.ChangesetID{Node: "n-2", Seq: 1 << 40}
	first, err := stores[1].Propose(c.ctx(), cs)
	c.must(err)
	_, others := c.leader(stores)
	c.asLeader(stores, func(s *Store) error { return s.Transfer(c.ctx()) })
	again, err := others[0].Propose(c.ctx(), cs)
	c.must(err)
	if first.Revision == 0 || again.Revision != first.Revision || len(again.Refused) > 0 {
		t.Fatalf("first %+v, again under another leader %+v", first, again)
	}
}

func TestNoQuorum(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	_, others := c.leader(stores)
	alone := others[0]
	for _, s := range stores {
		c.await(s, "a quorum, in a whole cluster", s.Quorum)
	}
	for _, s := range stores {
		if s != alone {
			c.net.cut(s.cfg.ID, true)
		}
	}
	c.await(alone, "no quorum", func() bool { return !alone.Quorum() })
	if alone.CaughtUp() {
		t.Error("caught up, with nobody there")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := alone.Propose(ctx, makeDir("d"))
	if !errors.Is(err, cluster.ErrNoQuorum) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want no quorum", err)
	}
	for _, s := range stores {
		c.net.cut(s.cfg.ID, false)
	}
	c.mkdir(alone, "e")
	c.agree(stores...)
}

func TestALeaderCutOffStepsDown(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	old, others := c.leader(stores)
	c.net.cut(old.cfg.ID, true)
	c.await(old, "no quorum", func() bool { return !old.Quorum() })
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := old.Propose(ctx, makeDir("d")); !errors.Is(err, cluster.ErrNoQuorum) {
		t.Fatalf("error %v, want no quorum", err)
	}
	c.mkdir(others[0], "e")
	c.net.cut(old.cfg.ID, false)
	c.agree(stores...)
}

func TestRestartFromTheLogAndFromASnapshot(t *testing.T) {
	c := newTestCluster(t)
	s := c.found(1)[0]
	c.mkdir(s, "before")
	c.must(s.raft.Snapshot().Error())
	c.mkdir(s, "after")
	want := snapshotOf(t, s.machine)
	applied := s.fsm.applied.Load()
	c.close(s)
	s = c.open("n-1")
	if !has(s, "before") || s.Stats()["last_snapshot_index"] == "0" {
		t.Fatal("a restarted node should begin at its snapshot, before it has a leader")
	}
	c.await(s, "caught up", s.CaughtUp)
	if string(want) != string(snapshotOf(t, s.machine)) || s.fsm.applied.Load() <= applied {
		t.Fatal("the state after a restart is another one")
	}
	if r := c.mkdir(s, "again"); r.Revision != 3 {
		t.Fatalf("revision %d, want 3: the sequence was used before, or revisions were lost", r.Revision)
	}
}

func TestASnapshotReachesAFollowerThatLags(t *testing.T) {
	c := newTestCluster(t)
	c.tune.TrailingLogs = 1
	stores := c.found(3)
	leader, others := c.leader(stores)
	lagging := others[0]
	id := lagging.cfg.ID
	c.close(lagging)
	for i := range 20 {
		c.mkdir(leader, fmt.Sprint("d", i))
	}
	// The log is kept as far back as the older of two snapshots; leadership may
	// move, on a busy machine.
	snapshots := func() {
		for _, s := range []*Store{leader, others[1]} {
			c.must(s.Barrier(c.ctx()))
			c.must(s.raft.Snapshot().Error())
		}
	}
	snapshots()
	c.mkdir(leader, "between")
	snapshots()
	c.mkdir(leader, "last")
	lagging = c.open(id)
	c.must(lagging.Barrier(c.ctx()))
	if !has(lagging, "last") || !has(lagging, "d0") {
		t.Fatal("the follower lacks what it missed")
	}
	c.await(lagging, "a snapshot", func() bool { return lagging.Stats()["last_snapshot_index"] != "0" })
	c.agree(leader, others[1], lagging)
	c.mkdir(lagging, "more") // its voters came with the snapshot
	if got := fmt.Sprint(lagging.machine.Voters()); got != "[n-1 n-2 n-3]" {
		t.Fatalf("voters %s", got)
	}
}

func TestMembershipChanges(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	leader, _ := c.leader(stores)
	ctx := c.ctx()
	if err := leader.Promote(ctx, "n-4"); err == nil {
		t.Fatal("a node that does not receive the log was promoted")
	}
	fourth := c.open("n-4")
	c.do(leader, put("n-4"))
	leader = c.asLeader(stores, func(s *Store) error { return s.AddNonVoter(ctx, "n-4") })
	c.await(fourth, "caught up", fourth.CaughtUp)
	role := func() cluster.Role { return leader.Members()[3].Role }
	if role() != cluster.NonVoter || len(leader.machine.Voters()) != 3 {
		t.Fatalf("role %q, voters %v", role(), leader.machine.Voters())
	}
	c.mkdir(fourth, "from a non-voter")
	leader = c.asLeader(stores, func(s *Store) error { return s.Promote(ctx, "n-4") })
	c.agree(append(stores, fourth)...)
	if role() != cluster.Voter || fmt.Sprint(fourth.machine.Voters()) != "[n-1 n-2 n-3 n-4]" {
		t.Fatalf("role %q, voters %v", role(), fourth.machine.Voters())
	}
	c.asLeader(stores, func(s *Store) error { return s.Demote(ctx, "n-4") })
	leader = c.asLeader(stores, func(s *Store) error { return s.Remove(ctx, "n-4") })
	if servers, err := leader.Servers(); err != nil || len(servers) != 3 || role() != "" {
		t.Fatalf("servers %v %v, role %q", servers, err, role())
	}
	var not *cluster.NotLeaderError
	if err := fourth.Remove(ctx, "n-1"); !errors.As(err, &not) {
		t.Fatalf("a change on a node that does not lead: %v", err)
	}
	c.await(fourth, "no quorum", func() bool { return !fourth.Quorum() })
	c.mkdir(leader, "without the fourth")

	// A leader does not remove itself: it hands over, in the end, and sends the caller on.
	c.await(leader, "another leader", func() bool {
		err := leader.Remove(ctx, leader.cfg.ID)
		if err == nil {
			t.Fatal("a leader removed itself")
		}
		next, _ := c.leader(stores)
		return errors.As(err, &not) && next != leader
	})
	c.asLeader(stores, func(s *Store) error { return s.Remove(ctx, leader.cfg.ID) })
}

func TestCloseHandsLeadershipOver(t *testing.T) {
	c := newTestCluster(t)
	// A leader that steps down by itself, on a busy machine, would be missed by nobody.
	c.tune.Heartbeat, c.tune.Election, c.tune.Lease = time.Second, time.Second, time.Second
	stores := c.found(3)
	const unnoticed = time.Minute // by the others, if leadership is not handed over
	for _, s := range stores {
		tuned := s.raft.ReloadableConfig()
		tuned.HeartbeatTimeout, tuned.ElectionTimeout = unnoticed, unnoticed
		c.must(s.raft.ReloadConfig(tuned))
	}
	old, others := c.leader(stores)
	began := time.Now()
	c.close(old)
	c.mkdir(others[0], "d")
	if took := time.Since(began); took > unnoticed/2 {
		t.Fatalf("%v without a leader: it was not handed over", took)
	}
	if _, err := old.Propose(c.ctx(), makeDir("e")); !errors.Is(err, ErrClosed) {
		t.Fatalf("a proposal to a closed store: %v", err)
	}
	if err := old.Close(); err != nil {
		t.Fatalf("a second close: %v", err)
	}
}

func TestCloseUnderLoad(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	var group sync.WaitGroup
	for i, s := range stores {
		for j := range 8 {
			group.Go(func() {
				for k := 0; ; k++ {
					if _, err := s.Propose(c.ctx(), makeDir(fmt.Sprintf("d-%d-%d-%d", i, j, k))); err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Errorf("proposal: %v", err)
						}
						return
					}
				}
			})
		}
	}
	c.await(stores[0], "some revisions", func() bool { return stores[0].Revision() > 100 })
	var closing sync.WaitGroup
	began := time.Now()
	for _, s := range stores {
		closing.Go(func() { c.close(s) })
	}
	closing.Wait()
	group.Wait()
	t.Logf("closing took %v", time.Since(began))
}

func TestLargeChangesets(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	_, others := c.leader(stores)
	cs := manifest.Changeset{Tree: "server", Message: strings.Repeat("m", 4000), Receipts: []manifest.Receipt{
		{Node: "n-1", Store: "s-n-1"}, {Node: "n-2", Store: "s-n-2"},
	}}
	for i := range 3000 {
		cs.Changes = append(cs.Changes, write(fmt.Sprint("file-with-a-name-", i), 0, file(fmt.Sprint(i))))
	}
	var large *TooLargeError
	if _, err := others[0].Propose(c.ctx(), cs); !errors.As(err, &large) || large.Limit != MaxEntry {
		t.Fatalf("a large per-path changeset: %v", err)
	}
	cs.Mode = manifest.Atomic
	parts, err := split(proto.FromChangeset(cs), 1)
	c.must(err)
	if len(parts) < 3 {
		t.Fatalf("%d parts: this test tests nothing", len(parts))
	}
	r, err := others[0].Propose(c.ctx(), cs)
	c.must(err)
	c.agree(stores...)
	v, _ := stores[0].View("server")
	if r.Revision != 1 || v.Manifest.Len() != 3000 || len(stores[0].History("", 0, 1)[0].Message) != 4000 {
		t.Fatalf("result %+v, %d entries", r, v.Manifest.Len())
	}
}

func TestWatchTellsAndCoalesces(t *testing.T) {
	c := newTestCluster(t)
	s := c.found(1)[0]
	c.await(s, "caught up", s.CaughtUp)
	news, stop := s.Watch()
	for i := range 5 {
		c.mkdir(s, fmt.Sprint("d", i))
	}
	<-news // one for all of them, or a few
	if len(news) > 1 {
		t.Fatal("news pile up")
	}
	stop()
	for range len(news) {
		<-news
	}
	c.mkdir(s, "unwatched")
	if len(news) != 0 {
		t.Fatal("told after stop")
	}
}

// TestALoneCommitReachesFollowersAtOnce: not with the leader's next heartbeat,
// which here is a minute away.
func TestALoneCommitReachesFollowersAtOnce(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	for _, s := range stores { // reopened with a commit timeout that nobody would wait for
		c.close(s)
	}
	c.tune.Commit = time.Minute
	for i, s := range stores {
		stores[i] = c.open(s.cfg.ID)
	}
	for _, s := range stores {
		c.await(s, "caught up", s.CaughtUp)
	}
	began := time.Now()
	c.mkdir(stores[0], "d")
	for _, s := range stores {
		c.await(s, "the commit", func() bool { return has(s, "d") })
	}
	t.Logf("visible on all after %v", time.Since(began))
}

func TestSequencesAreNeverReused(t *testing.T) {
	c := newTestCluster(t)
	s := c.found(1)[0]
	c.mkdir(s, "a")
	first := s.History("", 0, 1)[0].ID
	c.close(s)
	s = c.open("n-1")
	c.mkdir(s, "b")
	if second := s.History("", 0, 1)[0].ID; second.Node != first.Node || second.Seq <= first.Seq {
		t.Fatalf("%v after %v", second, first)
	}
	// Open ones stay close together: an outcome must not be forgotten first.
	oldest, err := s.sequence.take(c.ctx())
	c.must(err)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	for {
		seq, err := s.sequence.take(ctx)
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			break
		}
		if seq-oldest >= Window {
			t.Fatalf("%d is open beside %d", seq, oldest)
		}
		s.sequence.release(seq)
	}
	s.sequence.release(oldest)
	if _, err := s.sequence.take(c.ctx()); err != nil {
		t.Fatal(err)
	}
}
