package raftstore

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
)

const (
	// handOverWithin bounds how long Close tries to hand leadership over.
	handOverWithin = time.Second
	// drainWithin bounds how long Close waits for commands inside Raft.
	drainWithin = time.Second
	// stopWithin bounds how long Close waits for Raft; only a disk or a network
	// that hangs takes so long.
	stopWithin = 5 * time.Second
)

// Close hands leadership over where it can, stops Raft and waits for every
// goroutine. It never hangs: where something does not stop in time (a disk
// that hangs) it returns ErrNotStopped and leaves the log's file open.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Store) close() error {
	s.handOver()
	s.entering.Lock()
	close(s.closing)
	s.entering.Unlock()
	within(drainWithin, s.inside.Wait)
	stopping := s.raft.Shutdown()
	// Only now, and not by Raft's own future at its end: what still waits for
	// another node has to be torn away from it.
	s.transport.CloseStreams()
	_ = s.transport.Close()
	stopped := within(stopWithin, func() {
		_ = stopping.Error() // always nil
		s.stream.wait()
		s.running.Wait()
		s.inside.Wait()
	})
	if !stopped {
		return ErrNotStopped
	}
	return s.disk.Close()
}

func (s *Store) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// handOver gives leadership to another voter, so that the cluster does not
// have to notice the loss first.
func (s *Store) handOver() {
	if !s.leadsOthers() || s.Silent() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handOverWithin)
	defer cancel()
	if err := s.Transfer(ctx); err != nil {
		s.log.Warn("leadership was not handed over; the others will elect a leader", "err", err)
	}
}

// leadsOthers tells whether this node leads, and somebody else could.
func (s *Store) leadsOthers() bool {
	for _, srv := range s.raft.GetConfiguration().Configuration().Servers {
		if srv.Suffrage == raft.Voter && string(srv.ID) != string(s.cfg.ID) {
			return s.raft.State() == raft.Leader
		}
	}
	return false
}

// transfer asks Raft to make another voter the leader: the one that is asked
// for, else whoever is furthest. Raft itself does not look who answers, so the
// silent ones are left out as far as they are known.
func (s *Store) transfer(to cluster.NodeID) error {
	if to != "" {
		return s.transferTo(to)
	}
	var answering []cluster.NodeID
	silent := false
	for _, srv := range s.raft.GetConfiguration().Configuration().Servers {
		switch id := cluster.NodeID(srv.ID); {
		case id == s.cfg.ID || srv.Suffrage != raft.Voter:
		case s.silent.is(id):
			silent = true
		default:
			answering = append(answering, id)
		}
	}
	if !silent {
		return s.transferTo("")
	}
	err := errors.New("no other voter answers")
	for _, id := range answering {
		if err = s.transferTo(id); err == nil || errors.Is(err, ErrClosed) {
			break
		}
	}
	return err
}

// transferTo is transfer with the choice made; "" leaves it to Raft. Raft
// answers "busy" to whoever asks in the wrong moment: ask a few times.
func (s *Store) transferTo(id cluster.NodeID) error {
	const tries, pause = 20, 5 * time.Millisecond
	for i := 0; ; i++ {
		var err error
		if id == "" {
			err = s.raft.LeadershipTransfer().Error()
		} else {
			err = s.raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(id)).Error()
		}
		if !errors.Is(err, raft.ErrEnqueueTimeout) || i == tries {
			return err
		}
		select {
		case <-time.After(pause):
		case <-s.closing:
			return ErrClosed
		}
	}
}

// within runs f and tells whether it came back in time. A late one goes on
// behind our back; all uses end with Raft.
func within(limit time.Duration, f func()) bool {
	back := make(chan struct{})
	go func() {
		defer close(back)
		f()
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-back:
		return true
	case <-timer.C:
		return false
	}
}
