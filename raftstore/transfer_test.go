package raftstore

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
)

// Raft itself hands over to whoever is furthest, and of equals to the first:
// in an idle cluster that may be a dead one.
func TestPromise_Available_LeadershipIsNotHandedToTheDead(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	leader, others := c.leader(stores)
	// Make the first of the configuration, whom Raft would pick, the dead one.
	dead, alive := others[0], others[1]
	for _, srv := range leader.raft.GetConfiguration().Configuration().Servers {
		if id := cluster.NodeID(srv.ID); id == dead.cfg.ID || id == alive.cfg.ID {
			if id == alive.cfg.ID {
				dead, alive = alive, dead
			}
			break
		}
	}
	tuned := alive.raft.ReloadableConfig()
	tuned.HeartbeatTimeout, tuned.ElectionTimeout = time.Minute, time.Minute // it will not notice by itself
	c.must(alive.raft.ReloadConfig(tuned))
	c.mkdir(leader, "before")
	for _, s := range others {
		c.await(s, "the commit", func() bool { return has(s, "before") })
	}
	c.close(dead)
	c.await(leader, "notices the dead", func() bool { return leader.silent.is(dead.cfg.ID) })
	begun := time.Now()
	c.close(leader)
	c.await(alive, "leads", func() bool { return alive.raft.State() == raft.Leader })
	t.Logf("the other one led after %v", time.Since(begun))
}

func TestTransferToAnybodyThatVotes(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	for _, to := range stores {
		leader, _ := c.leader(stores)
		c.must(leader.TransferTo(c.ctx(), to.cfg.ID))
		c.await(to, "leads", func() bool { return to.raft.State() == raft.Leader })
		c.mkdir(stores[0], string("to-"+to.cfg.ID))
	}
	leader, others := c.leader(stores)
	var not *cluster.NotLeaderError
	if err := others[0].TransferTo(c.ctx(), others[1].cfg.ID); !errors.As(err, &not) || not.Leader != leader.cfg.ID {
		t.Errorf("a follower hands over: %v", err)
	}
	if err := leader.TransferTo(c.ctx(), "n-9"); err == nil {
		t.Error("handed over to a stranger")
	}
	c.mkdir(leader, "still-leads")
}
