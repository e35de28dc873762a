package raftstore

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
)

// Raft itself hands over to whoever is furthest, and of equals to the first:
// in an idle cluster that may be a dead one.
func TestPromise_Available_LeadershipIsNotHandedToTheDead(t *testing.T) {
	c := newTestCluster(t)
	// A leader that steps down by itself, on a busy machine, would be missed by nobody.
	c.tune.Heartbeat, c.tune.Election, c.tune.Lease = time.Second, time.Second, time.Second
	stores := c.found(5) // without the dead one and the leader they are a majority still
	leader, others := c.leader(stores)
	// The dead one is the first of the configuration, whom Raft would pick.
	var dead *Store
	for _, srv := range leader.raft.GetConfiguration().Configuration().Servers {
		i := slices.IndexFunc(others, func(s *Store) bool { return s.cfg.ID == cluster.NodeID(srv.ID) })
		if i >= 0 {
			dead = others[i]
			others = slices.Delete(others, i, i+1)
			break
		}
	}
	c.mkdir(leader, "before")
	for _, s := range others {
		tuned := s.raft.ReloadableConfig()
		tuned.HeartbeatTimeout, tuned.ElectionTimeout = time.Minute, time.Minute // nobody will notice by himself
		c.must(s.raft.ReloadConfig(tuned))
		c.await(s, "the commit", func() bool { return has(s, "before") })
	}
	c.close(dead)
	c.await(leader, "notices the dead", func() bool { return leader.silent.is(dead.cfg.ID) })
	begun := time.Now()
	c.close(leader)
	c.await(others[0], "somebody leads", func() bool {
		return slices.ContainsFunc(others, func(s *Store) bool { return s.raft.State() == raft.Leader })
	})
	t.Logf("another one led after %v", time.Since(begun))
}

func TestTransferToAnybodyThatVotes(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	for _, to := range stores {
		c.await(to, "leads", func() bool {
			leader, _ := c.leader(stores)
			if err := leader.TransferTo(c.ctx(), to.cfg.ID); err != nil {
				t.Log(err) // it leads no more, on a busy machine
			}
			return to.raft.State() == raft.Leader
		})
		c.mkdir(stores[0], string("to-"+to.cfg.ID))
	}
	leader, others := c.leader(stores)
	c.await(leader, "a follower names the leader", func() bool {
		leader, others = c.leader(stores)
		var not *cluster.NotLeaderError
		err := others[0].TransferTo(c.ctx(), others[1].cfg.ID)
		return errors.As(err, &not) && not.Leader == leader.cfg.ID
	})
	if err := leader.TransferTo(c.ctx(), "n-9"); err == nil {
		t.Error("handed over to a stranger")
	}
	c.mkdir(leader, "still-leads")
}
