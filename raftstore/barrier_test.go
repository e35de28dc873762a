package raftstore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Readers that come at the same time share an entry of the log, on a follower
// too; each still sees all that was acknowledged before it came.
func TestReadersShareABarrier(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	leader, others := c.leader(stores)
	c.mkdir(leader, "before")
	begun := leader.raft.LastIndex()
	const readers = 200
	var all sync.WaitGroup
	for _, s := range []*Store{leader, others[0]} {
		for range readers {
			all.Go(func() {
				if err := s.Barrier(c.ctx()); err != nil {
					t.Error(err)
				}
				if !has(s, "before") {
					t.Error("a reader does not see what was acknowledged before")
				}
			})
		}
	}
	all.Wait()
	if n := leader.raft.LastIndex() - begun; n > readers/2 {
		t.Errorf("%d readers cost %d entries of the log", 2*readers, n)
	} else {
		t.Logf("%d readers, %d entries", 2*readers, n)
	}
}

// While others wait for a barrier that is on its way, what is acknowledged is
// seen by whoever comes after: that barrier is not theirs.
func TestPromise_Order_ABarrierIsNotSharedWithThePast(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	_, others := c.leader(stores)
	writer, reader := others[0], others[1]
	stop := make(chan struct{})
	var busy sync.WaitGroup
	defer func() { close(stop); busy.Wait() }()
	for range 8 {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = reader.Barrier(c.ctx())
				}
			}
		})
	}
	for i := range 30 {
		name := string(rune('a'+i%26)) + string(rune('0'+i/26))
		c.mkdir(writer, name)
		c.must(reader.Barrier(c.ctx()))
		if !has(reader, name) {
			t.Fatalf("%s was acknowledged, and is not seen behind a barrier", name)
		}
	}
}

// One who gives up leaves the others their barrier, and the last one ends it:
// whoever comes later is not told that it ended.
func TestAReaderThatGivesUpTakesNobodyAlong(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	leader, others := c.leader(stores)
	s := others[0]
	c.net.cut(s.cfg.ID, true)
	c.await(s, "no quorum", func() bool { return !s.Quorum() })
	waits := make(chan error, 3)
	for range 3 { // the first is on its way, the others share the next
		go func() {
			ctx, cancel := context.WithTimeout(c.ctx(), 100*time.Millisecond)
			defer cancel()
			waits <- s.Barrier(ctx)
		}()
	}
	for range 3 {
		if err := <-waits; !errors.Is(err, cluster.ErrNoQuorum) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a quorum: %v", err)
		}
	}
	go func() { waits <- s.Barrier(c.ctx()) }()
	c.net.cut(s.cfg.ID, false)
	if err := <-waits; err != nil {
		t.Errorf("after the others gave up: %v", err)
	}
	c.mkdir(leader, "d")
	c.must(s.Barrier(c.ctx()))
	if !has(s, "d") {
		t.Error("d is not seen")
	}
}

// losesNoop is a Forwarder that carries a barrier to the leader, and whose answer
// never comes back: the first time, or each time while deaf.
type losesNoop struct {
	forwarder
	deaf  atomic.Bool
	asked atomic.Int32
}

func (f *losesNoop) Forward(ctx context.Context, leader cluster.NodeID, cmd *pb.Command) (*pb.Outcome, uint64, error) {
	out, index, err := f.forwarder.Forward(ctx, leader, cmd)
	if err == nil && cmd.GetNoop() != nil && (f.asked.Add(1) == 1 || f.deaf.Load()) {
		<-ctx.Done() // the answer is lost: the leader leads on, and the caller would wait for ever
		return nil, 0, ctx.Err()
	}
	return out, index, err
}

// A shared barrier whose answer is lost is asked anew, though none of those who
// wait for it has given up: whoever comes later waits for it too.
func TestPromise_Order_ABarrierWhoseAnswerIsLost(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	_, others := c.leader(stores)
	id := others[0].cfg.ID
	c.close(others[0])
	f := &losesNoop{forwarder: forwarder{string(id), c.net}}
	cfg := c.config(id)
	cfg.Stream, cfg.Forward = c.net.layer(t, string(id)), f
	s, err := Open(cfg)
	c.must(err)
	t.Cleanup(func() { c.close(s) })
	c.await(s, "catches up", s.CaughtUp)

	waits := make(chan error)
	const readers = 5
	c.await(s, "asks another one, and anew", func() bool {
		c.follows(s)
		for range readers { // the first is on its way, the others wait for its end
			go func() { waits <- s.Barrier(c.ctx()) }()
		}
		for range readers {
			if err := <-waits; err != nil {
				t.Errorf("a reader behind a lost answer: %v", err)
			}
		}
		return f.asked.Load() >= 2 // else it has led meanwhile
	})

	// Where every answer is lost a reader's own time ends its wait, and nothing goes on asking.
	f.deaf.Store(true)
	c.await(s, "all answers are lost, and there is a quorum", func() bool {
		c.follows(s)
		ctx, cancel := context.WithTimeout(c.ctx(), 100*time.Millisecond)
		defer cancel()
		err := s.Barrier(ctx)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("all answers are lost: %v", err)
		}
		return err != nil && !errors.Is(err, cluster.ErrNoQuorum) // which there may be on a busy machine, for a moment
	})
	f.deaf.Store(false)
	c.must(s.Barrier(c.ctx()))
}
