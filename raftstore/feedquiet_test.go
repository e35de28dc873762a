package raftstore

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// A parent all of whose log is in a snapshot feeds its children at once, although
// nothing more is committed: right after it took the snapshot in, and after a
// restart.
func TestPromise_Available_AParentWhoseLogIsASnapshot(t *testing.T) {
	c := newTestCluster(t)
	c.tune.TrailingLogs = 1
	stores := c.found(1)
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

// A leader that was cut off has entries in its log that lost. It comes back as a
// follower, by a snapshot, and feeds another one: nobody gets what has lost.
func TestPromise_Order_AParentWhoseLogHoldsWhatHasLost(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	child := c.openFollower("f-1")
	leader, others := c.leader(stores)
	c.mkdir(leader, "before")
	for _, s := range stores {
		c.must(s.Barrier(c.ctx()))
	}
	c.net.cut(leader.cfg.ID, true)
	c.must(feed(c.ctx(), leader, child, leader.AppliedIndex(), never))
	for i := range 3 {
		ctx, cancel := context.WithTimeout(c.ctx(), 100*time.Millisecond)
		if _, err := leader.Propose(ctx, makeDir(fmt.Sprint("lost", i))); err == nil {
			t.Fatal("committed without a majority")
		}
		cancel()
	}
	if place, err := leader.Place(); err != nil || place.Last <= place.Applied {
		t.Fatalf("%+v, %v: it has nothing that could be lost", place, err)
	}
	c.await(others[0], "another leader", func() bool { id, ok := others[0].Leader(); return ok && id != leader.cfg.ID })
	for i := range 9 {
		c.mkdir(others[0], fmt.Sprint("kept", i))
	}
	c.must(others[0].Barrier(c.ctx()))
	// What a member of a large cluster has of the log by now.
	c.must(others[0].raft.Snapshot().Error())
	all, err := others[0].kept.List()
	c.must(err)
	_, content, err := others[0].kept.Open(all[0].ID)
	c.must(err)
	c.must(feedSnapshot(c.ctx(), others[0], leader, Portion{Snapshot: all[0], Content: content}, never))
	c.must(content.Close())
	c.same(others[0], leader)
	place, err := child.Place()
	c.must(err)
	f, err := leader.Feed(place)
	c.must(err)
	p, err := f.Next(c.ctx())
	c.must(err)
	if p.Snapshot == nil {
		t.Fatalf("the child would get %d entries that nobody has committed", len(p.Entries))
	}
	c.must(p.Content.Close())
	c.must(feed(c.ctx(), leader, child, leader.AppliedIndex(), never))
	c.same(others[0], child)
}
