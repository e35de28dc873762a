package raftstore

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
)

// follow keeps track of who leads until the store closes: it tells the
// watchers, and brings this node up to what the leader had committed when it
// was found.
func (s *Store) follow() {
	defer s.running.Done()
	news := make(chan raft.Observation, 8) // a full one is no loss: what it says is looked up anyway
	observer := raft.NewObserver(news, false, func(o *raft.Observation) bool {
		switch data := o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		case raft.FailedHeartbeatObservation:
			s.silent.set(cluster.NodeID(data.PeerID), true)
		case raft.ResumedHeartbeatObservation:
			s.silent.set(cluster.NodeID(data.PeerID), false)
		}
		return false
	})
	s.raft.RegisterObserver(observer)
	defer s.raft.DeregisterObserver(observer)

	stop := func() {} // of the catching up, which is begun anew under each leader
	defer func() { stop() }()
	leader := cluster.NodeID("")
	for first := true; ; first = false {
		if id, _ := s.Leader(); id != leader || first {
			stop()
			s.caughtUp.Store(false)
			s.silent.forget()
			s.tellLeader(id, first)
			leader, stop = id, s.beginCatchUp(id != "")
		}
		s.leaders.signal()
		s.watchers.notify()
		select {
		case <-news:
		case <-s.closing:
			return
		}
	}
}

func (s *Store) tellLeader(id cluster.NodeID, first bool) {
	switch {
	case id != "":
		s.log.Info("the log has a leader", "leader", id, "self", id == s.cfg.ID)
	case !first:
		s.log.Warn("the log has no leader; writes wait until a majority of the voters answers")
	}
}

// beginCatchUp runs catchUp until stop is called.
func (s *Store) beginCatchUp(led bool) (stop func()) {
	if !led {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.catchUp(ctx)
	}()
	return func() { cancel(); <-done }
}

// catchUp waits until this node has applied what was committed when it was
// called. On a new leader it is also what commits the entries of its
// predecessors.
func (s *Store) catchUp(ctx context.Context) {
	fed, err := s.fedUp(ctx)
	if !fed {
		err = s.Barrier(ctx)
	}
	if err == nil {
		s.caughtUp.Store(true)
		s.watchers.notify()
	}
}

// silence is who did not answer this leader's latest heartbeat. Safe for
// concurrent use.
type silence struct {
	mu  sync.Mutex
	who map[cluster.NodeID]bool
}

func (s *silence) set(id cluster.NodeID, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.who == nil {
		s.who = map[cluster.NodeID]bool{}
	}
	s.who[id] = silent
}

func (s *silence) is(id cluster.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.who[id]
}

// forget: another leader hears for itself.
func (s *silence) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.who = nil
}
