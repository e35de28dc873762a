package raftstore

import (
	"context"
	"sync"
	"testing"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// losesAnswer is a Forwarder that takes the leader off the network after it
// has applied the first changeset, and before its answer travels back.
type losesAnswer struct {
	forwarder
	once sync.Once
	lost chan cluster.NodeID // the leader that was cut off
}

func (f *losesAnswer) Forward(ctx context.Context, leader cluster.NodeID, cmd *pb.Command) (*pb.Outcome, uint64, error) {
	out, index, err := f.forwarder.Forward(ctx, leader, cmd)
	if err == nil && cmd.GetPropose() != nil {
		f.once.Do(func() {
			f.of.cut(leader, true)
			f.lost <- leader
			out, index, err = nil, 0, errUnreachable
		})
	}
	return out, index, err
}

// A retry after a lost answer gets, from the next leader, the answer that the
// first one gave.
func TestALostAnswerIsAskedForAgainAndAppliedOnce(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	_, others := c.leader(stores)
	id := others[0].cfg.ID
	c.close(others[0])
	f := &losesAnswer{forwarder: forwarder{string(id), c.net}, lost: make(chan cluster.NodeID, 1)}
	cfg := c.config(id)
	cfg.Stream, cfg.Forward = c.net.layer(t, string(id)), f
	s, err := Open(cfg)
	c.must(err)
	t.Cleanup(func() { c.close(s) })
	c.await(s, "catches up", s.CaughtUp)
	c.follows(s)

	if r := c.mkdir(s, "d"); r.Revision != 1 {
		t.Fatalf("revision %d: the second application made one of its own, or found the path in force", r.Revision)
	}
	select {
	case gone := <-f.lost:
		if now, _ := s.Leader(); now == gone {
			t.Fatal("answered by the leader that was cut off")
		}
	default:
		t.Fatal("no answer was lost: the test does not test")
	}
	c.must(s.Barrier(c.ctx()))
	if h := s.History("", 0, 0); len(h) != 1 {
		t.Fatalf("%d commits, want one", len(h))
	}
}
