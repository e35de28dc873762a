package raftstore

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	gproto "google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// A parent all of whose log is in a snapshot feeds its children at once, although
// nothing more is committed: right after it took the snapshot in, and after a
// restart.
func TestPromise_Available_AParentWhoseLogIsASnapshot(t *testing.T) {
	c := newTestCluster(t)
	c.tune.TrailingLogs = 1
	stores := c.found(1)
	c.await(stores[0], "has caught up", stores[0].CaughtUp) // its barrier is an entry too
	parent, fresh, behind := c.openFollower("f-1"), c.openFollower("f-2"), c.openFollower("f-3")
	for i := range 5 {
		c.mkdir(stores[0], fmt.Sprint("d", i))
	}
	c.must(feed(c.ctx(), stores[0], behind, stores[0].AppliedIndex(), never))
	for i := range 2 { // the log reaches back to the older one
		c.mkdir(stores[0], fmt.Sprint("s", i))
		c.must(stores[0].raft.Snapshot().Error())
	}
	last := stores[0].AppliedIndex()
	c.must(feed(c.ctx(), stores[0], parent, last, never))
	c.same(stores[0], parent)
	if all, err := parent.kept.List(); err != nil || len(all) == 0 || all[0].Index != last {
		t.Fatalf("%v, %v: the log came otherwise", all, err)
	}
	c.must(feed(c.ctx(), parent, behind, last, never))
	c.must(feed(c.ctx(), parent, fresh, last, never))
	c.same(parent, fresh)
	c.close(parent)
	parent = c.open("f-1")
	c.must(feed(c.ctx(), stores[0], parent, last, never))
	c.must(feed(c.ctx(), parent, fresh, last, never))
}

// A follower that was a voter has entries in its log that lost. By a snapshot it
// comes beyond them, and feeds another one: nobody gets what has lost.
func TestPromise_Order_AParentWhoseLogHoldsWhatHasLost(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(1)
	c.await(stores[0], "has caught up", stores[0].CaughtUp) // its barrier is an entry too
	parent, child := c.openFollower("f-1"), c.openFollower("f-2")
	c.mkdir(stores[0], "before")
	c.must(feed(c.ctx(), stores[0], parent, stores[0].AppliedIndex(), never))
	at, err := parent.Place()
	c.must(err)
	last, term := at.Applied, at.AppliedTerm
	c.must(feed(c.ctx(), parent, child, last, never))
	lost, err := gproto.Marshal(proposal(proto.FromChangeset(makeDir("lost")), 1))
	c.must(err)
	_, err = parent.call(c.ctx(), &raft.AppendEntriesRequest{ // of a leader that was cut off
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: parent.raft.CurrentTerm() + 1, PrevLogEntry: last, PrevLogTerm: term,
		Entries: []*raft.Log{{Index: last + 1, Term: term + 1, Type: raft.LogCommand, Data: lost}}, LeaderCommitIndex: last,
	}, nil)
	c.must(err)
	if place, err := parent.Place(); err != nil || place.Last != place.Applied+1 {
		t.Fatalf("%+v, %v: it has nothing that could be lost", place, err)
	}
	for i := range 9 {
		c.mkdir(stores[0], fmt.Sprint("kept", i))
	}
	c.must(stores[0].raft.Snapshot().Error())
	all, err := stores[0].kept.List()
	c.must(err)
	_, content, err := stores[0].kept.Open(all[0].ID)
	c.must(err)
	c.must(feedSnapshot(c.ctx(), stores[0], parent, Portion{Snapshot: all[0], Content: content}, never))
	c.must(content.Close())
	c.same(stores[0], parent)
	place, err := child.Place()
	c.must(err)
	f, err := parent.Feed(place)
	c.must(err)
	p, err := f.Next(c.ctx())
	c.must(err)
	if p.Snapshot == nil {
		t.Fatalf("the child would get %d entries that nobody has committed", len(p.Entries))
	}
	c.must(p.Content.Close())
	c.must(feed(c.ctx(), parent, child, parent.AppliedIndex(), never))
	c.same(stores[0], child)
}

// A follower whose disk is full takes nothing, and hears of the leader all the
// same: it tells its children of no quorum, so that they look for another parent.
func TestAParentThatTakesNothingTellsOfNoQuorum(t *testing.T) {
	c := newTestCluster(t)
	c.tune.Stall = 400 * time.Millisecond // the disk is looked at four times as often
	var full atomic.Bool
	c.free = func(id cluster.NodeID) (int64, error) {
		if id == "f-1" && full.Load() {
			return 0, nil
		}
		return 1 << 30, nil
	}
	stores := c.found(1)
	parent := c.openFollower("f-1")
	told := func(want bool) {
		t.Helper()
		c.await(parent, fmt.Sprintf("tells of a quorum: %t", want), func() bool {
			c.must(parent.Take(c.ctx(), stores[0].Tell(), 0, 0, nil))
			return parent.Tell().Quorum == want && parent.Quorum() // it hears of the leader itself
		})
	}
	told(true)
	full.Store(true)
	told(false)
	full.Store(false)
	told(true)
}

// Who waits for what its parent has, and is fed no more, waits for Raft instead.
func TestWaitingAsAFollowerEndsWithTheFeeding(t *testing.T) {
	c := newTestCluster(t)
	child := c.openFollower("f-1")
	c.must(child.Take(c.ctx(), Told{Quorum: true}, 0, 0, nil)) // of no leader: the Store itself waits for nothing
	waited := make(chan bool, 1)
	go func() {
		fed, _ := child.fedUp(c.ctx())
		waited <- fed
	}()
	c.await(child, "waits", func() bool {
		child.applied.mu.Lock()
		defer child.applied.mu.Unlock()
		return child.applied.next != nil
	})
	child.Unfed()
	if <-waited {
		t.Error("it waits for a parent that it has not")
	}
}

// A voter that is made a follower gives its vote up first; but it may get one again
// before the log says that it is a follower. It does not keep it.
func TestPromise_Available_AFollowerKeepsNoVote(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	for _, id := range []string{"n-1", "n-2", "n-3"} {
		c.do(stores[0], knowing(id, Newest))
	}
	c.do(stores[0], raise(FollowersFormat))
	c.do(stores[0], &pb.Command{Format: Format, Do: &pb.Command_SetRole{SetRole: &pb.SetRole{Id: "n-3", Role: "follower"}}})
	c.must(stores[0].Barrier(c.ctx()))
	var all []Standing
	for _, m := range stores[0].Members() {
		all = append(all, Standing{Member: m, Alive: true, Ready: true})
	}
	if step, ok := NextStep(all, Policy{}); !ok || step.ID != "n-3" || step.Role != cluster.NonVoter {
		t.Errorf("%+v, %t: it votes for ever", step, ok)
	}
}

// A portion is one message, and a follower gives up a parent that says nothing for
// three seconds: 80 kB take two and a half at 256 kbit/s. A batch of changes, one
// entry, has at most 48 kB.
func TestPromise_Converge_APortionFitsASlowLink(t *testing.T) {
	const most = 80 << 10
	c := newTestCluster(t)
	stores := c.found(1)
	for i := range 8 {
		var changes []manifest.Change
		for j := range 200 {
			changes = append(changes, write(fmt.Sprintf("%d-%d-%s", i, j, strings.Repeat("n", 120)), 0, dir))
		}
		_, err := stores[0].Propose(c.ctx(), manifest.Changeset{Tree: "server", Changes: changes})
		c.must(err)
	}
	f, err := stores[0].Feed(Place{})
	c.must(err)
	portions := 0
	for last := uint64(0); last < stores[0].AppliedIndex(); portions++ {
		p, err := f.Next(c.ctx())
		c.must(err)
		size := 0
		for _, e := range p.Entries {
			size += len(e.Data)
			last = e.Index
		}
		if size > most {
			t.Errorf("%d entries have %d bytes", len(p.Entries), size)
		}
	}
	if portions < 3 {
		t.Errorf("%d portions: nothing was tested", portions)
	}
}
