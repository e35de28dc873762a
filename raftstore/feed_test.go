package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// errCut is a connection that breaks.
var errCut = errors.New("cut")

// feed carries from parent to child what package node carries over a stream,
// until the child has applied upTo. cut is asked before each message.
func feed(ctx context.Context, parent, child *Store, upTo uint64, cut func() bool) error {
	place, err := child.Place()
	if err != nil {
		return err
	}
	f, err := parent.Feed(place)
	if err != nil {
		return err
	}
	for {
		if err := child.Take(ctx, parent.Tell(), 0, 0, nil); err != nil {
			return err
		}
		if child.AppliedIndex() >= upTo {
			return nil
		}
		p, err := f.Next(ctx)
		switch {
		case err != nil:
			return err
		case cut():
			err = errCut
		case p.Snapshot != nil:
			err = feedSnapshot(ctx, parent, child, p, cut)
		default:
			err = child.Take(ctx, parent.Tell(), p.Prev, p.PrevTerm, p.Entries)
		}
		if p.Content != nil {
			err = errors.Join(err, p.Content.Close())
		}
		if err != nil {
			return err
		}
	}
}

func feedSnapshot(ctx context.Context, parent, child *Store, p Portion, cut func() bool) (err error) {
	spool, err := child.Spool(*p.Snapshot)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spool.Close()) }()
	chunk := make([]byte, 1000)
	for {
		n, err := p.Content.Read(chunk)
		if cut() {
			return errCut
		}
		if _, werr := spool.Write(chunk[:n]); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			return spool.Install(ctx, parent.Tell())
		}
		if err != nil {
			return err
		}
	}
}

func never() bool { return false }

// openFollower starts a node that Raft does not know.
func (c *testCluster) openFollower(id cluster.NodeID) *Store { return c.open(id) }

// same waits until a follower's machine equals its parent's. (Another one may have
// fed it, which knows more for a moment.)
func (c *testCluster) same(parent, child *Store) {
	c.t.Helper()
	c.await(child, "the same state", func() bool {
		return string(snapshotOf(c.t, child.machine)) == string(snapshotOf(c.t, parent.machine))
	})
}

// knows waits until a parent knows to be committed what a child has applied: the
// child may have it from another one.
func (c *testCluster) knows(parent, child *Store) {
	c.t.Helper()
	c.await(parent, "knows as much as its child", func() bool { return parent.raft.CommitIndex() >= child.AppliedIndex() })
}

func TestAFollowerIsFedAndProposes(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	for i := range 20 {
		c.mkdir(stores[i%3], fmt.Sprint("d", i))
	}
	// A chain: a member, a follower, a follower of it.
	one, two := c.openFollower("f-1"), c.openFollower("f-2")
	ctx, cancel := context.WithCancel(c.ctx())
	defer cancel()
	ended := make(chan error, 2)
	for _, link := range [][2]*Store{{stores[1], one}, {one, two}} {
		go func() {
			pulse := time.NewTicker(20 * time.Millisecond)
			defer pulse.Stop()
			for ctx.Err() == nil {
				err := feed(ctx, link[0], link[1], link[0].AppliedIndex(), never)
				if err != nil && !errors.Is(err, ErrBehind) && ctx.Err() == nil {
					ended <- err
					return
				}
				<-pulse.C
			}
			ended <- nil
		}()
	}
	c.await(two, "has caught up", two.CaughtUp)
	c.await(two, "a leader, and a quorum", func() bool { _, ok := two.Leader(); return ok && two.Quorum() })
	c.do(stores[0], knowing("f-2", Newest))
	if r := c.mkdir(two, "from-below"); r.Revision == 0 {
		t.Fatalf("%+v", r)
	}
	c.must(two.Barrier(c.ctx()))
	if !has(two, "from-below") || !has(two, "d19") {
		t.Error("the follower's follower lacks something")
	}
	if servers, err := stores[0].Servers(); err != nil || len(servers) != 3 {
		t.Errorf("Raft's configuration: %v %v", servers, err)
	}
	for _, s := range []*Store{one, two} {
		if s.raft.State() != raft.Follower {
			t.Errorf("%s is %s", s.cfg.ID, s.raft.State())
		}
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	// Without a parent it knows of no quorum, keeps what it has, and elects nobody.
	c.await(two, "notices that nobody feeds it", func() bool { return !two.Quorum() && !two.CaughtUp() })
	if two.raft.State() != raft.Follower || two.raft.CurrentTerm() > stores[0].raft.CurrentTerm() {
		t.Errorf("%s in term %d", two.raft.State(), two.raft.CurrentTerm())
	}
}

// However often the stream breaks, between whichever messages, and whoever is
// the next parent: the follower goes on where it was, and ends equal.
func TestPromise_Order_AFeedThatBreaksAnywhere(t *testing.T) {
	c := newTestCluster(t)
	c.tune.TrailingLogs, c.tune.SnapshotThreshold = 2, 1
	stores := c.found(3)
	child := c.openFollower("f-1")
	first := child
	messages, rounds := 0, 0
	for step := range 6 {
		for i := range 8 {
			c.mkdir(stores[0], fmt.Sprintf("d-%d-%d", step, i))
		}
		for _, s := range stores {
			c.must(s.Barrier(c.ctx()))
		}
		if step%2 == 1 { // the log is cut: what was before comes as a snapshot
			for range 2 {
				for _, s := range stores {
					c.must(s.raft.Snapshot().Error())
				}
				c.mkdir(stores[0], fmt.Sprintf("s-%d-%d", step, rounds))
				rounds++
				for _, s := range stores {
					c.must(s.Barrier(c.ctx()))
				}
			}
		}
		// Each attempt gets one message further than the one before, from another parent.
		for far := 0; ; far++ {
			left := far
			parent := stores[far%3]
			c.knows(parent, child)
			err := feed(c.ctx(), parent, child, parent.AppliedIndex(), func() bool { messages++; left--; return left < 0 })
			if err == nil {
				break
			}
			if !errors.Is(err, errCut) || far > 200 {
				t.Fatalf("step %d, attempt %d: %v", step, far, err)
			}
			if far%4 == 3 { // and the follower restarts
				c.close(child)
				child = c.open("f-1")
			}
		}
		c.same(stores[0], child)
	}
	if child == first || messages < 20 {
		t.Errorf("%d messages, restarted %v: nothing was tested", messages, child != first)
	}
	c.close(child)
	child = c.open("f-1")
	c.knows(stores[2], child)
	c.must(feed(c.ctx(), stores[2], child, stores[2].AppliedIndex(), never))
	c.same(stores[2], child)
}

// A follower that is restarted has entries that it does not know to be committed.
// It learns it although nothing more happens in the cluster.
func TestPromise_Order_AFollowerIsRestartedWhileNothingHappens(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(1)
	child := c.openFollower("f-1")
	for i := range 5 {
		c.mkdir(stores[0], fmt.Sprint("d", i))
	}
	c.must(feed(c.ctx(), stores[0], child, stores[0].AppliedIndex(), never))
	c.close(child)
	child = c.open("f-1")
	if place, err := child.Place(); err != nil || place.Applied >= place.Last {
		t.Fatalf("%+v, %v: it knows already", place, err)
	}
	c.must(feed(c.ctx(), stores[0], child, stores[0].AppliedIndex(), never))
	c.same(stores[0], child)
}

// A parent that knows less refuses, and one of another history is found out.
func TestAFeedRefuses(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(1)
	child, young := c.openFollower("f-1"), c.openFollower("f-2")
	c.mkdir(stores[0], "a")
	c.must(feed(c.ctx(), stores[0], child, stores[0].AppliedIndex(), never))
	place, err := child.Place()
	c.must(err)
	if _, err := young.Feed(place); !errors.Is(err, ErrBehind) {
		t.Errorf("a parent that knows nothing: %v", err)
	}
	place.AppliedTerm += 7
	place.LastTerm += 7
	if _, err := stores[0].Feed(place); !errors.Is(err, ErrDiverged) {
		t.Errorf("another history: %v", err)
	}
	told := stores[0].Tell()
	next := child.raft.LastIndex() + 1
	for what, e := range map[string]*raft.Log{
		"a gap":             {Index: next + 1, Term: 2, Type: raft.LogCommand},
		"no term":           {Index: next, Type: raft.LogCommand},
		"an unknown kind":   {Index: next, Term: 2, Type: raft.LogAddPeerDeprecated},
		"no configuration":  {Index: next, Term: 2, Type: raft.LogConfiguration, Data: []byte("x")},
		"behind a gap here": nil,
	} {
		prev, entries := next-1, []*raft.Log{e}
		if e == nil {
			prev, entries = next+5, []*raft.Log{{Index: next + 6, Term: 2, Type: raft.LogNoop}}
		}
		if err := child.Take(c.ctx(), told, prev, 2, entries); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	if _, err := child.Spool(raft.SnapshotMeta{Version: 1, Index: 1, Term: 1}); err == nil {
		t.Error("a snapshot of the past was taken")
	}
	spool, err := child.Spool(raft.SnapshotMeta{Version: 1, Index: 1 << 20, Term: 9, Size: 10})
	c.must(err)
	if _, err := spool.Write(make([]byte, 11)); err == nil {
		t.Error("a snapshot longer than it said was taken")
	}
	if err := spool.Install(c.ctx(), told); err == nil {
		t.Error("half a snapshot was installed")
	}
	if n, err := spool.Write(make([]byte, 10)); n != 10 || err != nil {
		t.Error(n, err)
	}
	if err := spool.Install(c.ctx(), told); err == nil {
		t.Error("rubbish was installed")
	}
	c.must(spool.Close())
	c.same(stores[0], child)
}

// A member of Raft that becomes a follower has its unacknowledged entries
// replaced by what was committed; and a follower that becomes a member again
// is fed by the leader.
func TestMembersAndFollowersChangePlaces(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	leader, others := c.leader(stores)
	c.net.cut(leader.cfg.ID, true)
	ctx, cancel := context.WithTimeout(c.ctx(), 300*time.Millisecond)
	_, err := leader.Propose(ctx, makeDir("lost"))
	cancel()
	if err == nil {
		t.Fatal("committed without a majority")
	}
	c.await(others[0], "another leader", func() bool { id, ok := others[0].Leader(); return ok && id != leader.cfg.ID })
	c.asLeader(others, func(s *Store) error { return s.Remove(c.ctx(), leader.cfg.ID) })
	c.mkdir(others[0], "kept")
	c.must(others[0].Barrier(c.ctx()))
	c.must(feed(c.ctx(), others[0], leader, others[0].AppliedIndex(), never))
	c.same(others[0], leader)
	if has(leader, "lost") || !has(leader, "kept") {
		t.Error("the demoted leader holds what was not committed")
	}
	c.await(leader, "follows", func() bool { return leader.raft.State() == raft.Follower })
	c.net.cut(leader.cfg.ID, false)
	leader.Unfed()
	c.asLeader(others, func(s *Store) error { return s.AddNonVoter(c.ctx(), leader.cfg.ID) })
	c.mkdir(others[0], "again")
	c.await(leader, "is fed by Raft", func() bool { return has(leader, "again") })
	c.await(leader, "has caught up", leader.CaughtUp)
}

func TestMachineFollowers(t *testing.T) {
	m := founded()
	joins := func(id string) { // as a joiner's word
		c := knowing(id, Newest)
		c.GetPutMember().Member.Follower = true
		mustDo(t, m, c)
	}
	role := func(id, role string) Code {
		return Code(m.Apply(&pb.Command{Format: Format, Do: &pb.Command_SetRole{SetRole: &pb.SetRole{Id: id, Role: role}}}).GetCode())
	}
	is := func(id string, want cluster.Role) {
		t.Helper()
		for _, o := range m.Members() {
			if string(o.ID) == id && o.Role == want {
				return
			}
		}
		t.Errorf("%s is not %q: %+v", id, want, m.Members())
	}
	// The format before does not know of followers: nothing of the word stays.
	joins("n-4")
	is("n-4", "")
	if got := role("n-4", "follower"); got != CodeMalformed {
		t.Errorf("before the format: %v", got)
	}
	for _, id := range []string{"n-1", "n-2", "n-3"} {
		mustDo(t, m, knowing(id, Newest))
	}
	mustDo(t, m, raise(FollowersFormat))
	is("n-4", "")
	joins("n-5")
	is("n-5", cluster.Follower)
	mustDo(t, m, knowing("n-5", Newest)) // it announces itself: no word of its role
	is("n-5", cluster.Follower)
	joins("n-4") // who is a member does not become a follower so
	is("n-4", "")
	if got := role("n-5", "x"); got != CodeMalformed {
		t.Errorf("no role: %v", got)
	}
	is("n-5", cluster.Follower)
	if got := role("n-4", "follower"); got != Done {
		t.Errorf("demoted to follower: %v", got)
	}
	is("n-4", cluster.Follower)
	m = restored(t, snapshotOf(t, m))
	is("n-4", cluster.Follower)
	for id, to := range map[string]string{"n-4": "", "n-5": "voter"} {
		if got := role(id, to); got != Done {
			t.Errorf("%s to %q: %v", id, to, got)
		}
		is(id, "")
	}
	for _, o := range m.Members() {
		if o.ID == "n-5" && o.Wish != cluster.Voter || o.ID == "n-4" && o.Wish != "" {
			t.Errorf("wish %+v", o)
		}
	}
	// A life that begins with a follower alone: it votes.
	joins("n-6")
	is("n-6", cluster.Follower)
	if got := m.Revision(); got != manifest.Revision(0) {
		t.Error(got)
	}
	m.promoted("n-6")
	is("n-6", "")
}
