package raftstore

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/cluster"
)

// refusingStable fails to save for a while.
type refusingStable struct {
	raft.StableStore
	err   error
	times int
	tried int
}

func (r *refusingStable) SetUint64(key []byte, val uint64) error {
	if r.tried++; r.tried <= r.times {
		return fmt.Errorf("write log.db: %w", r.err)
	}
	return r.StableStore.SetUint64(key, val)
}

func newSteadfast(disk raft.StableStore) (s *steadfast, closing chan struct{}, failed chan error, fenced *bool) {
	closing, failed, fenced = make(chan struct{}), make(chan error, 1), new(bool)
	return &steadfast{
		StableStore: disk, log: slog.New(slog.DiscardHandler), closing: closing, failed: failed,
		fence: func() { *fenced = true },
	}, closing, failed, fenced
}

// A full disk delays a term, and never ends the process.
func TestATermWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &refusingStable{StableStore: raft.NewInmemStore(), err: unix.ENOSPC, times: 3}
		s, _, failed, _ := newSteadfast(disk)
		saved := make(chan error, 1)
		begun := time.Now()
		go func() { saved <- s.SetUint64([]byte("term"), 7) }()
		synctest.Wait()
		if !s.stalled(time.Hour) {
			t.Error("the store does not say that it cannot save")
		}
		if err := <-saved; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != 3*saveAgain {
			t.Errorf("saved after %v", took)
		}
		if n, err := s.GetUint64([]byte("term")); n != 7 || err != nil {
			t.Errorf("saved %d, %v", n, err)
		}
		if s.stalled(0) || len(failed) > 0 {
			t.Error("trouble is told of although all was saved")
		}
	})
}

// A disk that has failed for good is reported, not tried again, and ends with
// the store; nothing is said any more by then, and Raft never hears that the
// term was saved.
func TestATermOnAFailedDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &refusingStable{StableStore: raft.NewInmemStore(), err: unix.EIO, times: 1}
		s, closing, failed, fenced := newSteadfast(disk)
		returned, over := false, make(chan struct{})
		go func() {
			defer close(over)
			_ = s.SetUint64([]byte("term"), 7)
			returned = true
		}()
		if err := <-failed; !errors.Is(err, unix.EIO) {
			t.Errorf("reported: %v", err)
		}
		time.Sleep(time.Hour)
		if disk.tried != 1 || *fenced {
			t.Errorf("tried %d times, fenced: %v", disk.tried, *fenced)
		}
		close(closing)
		<-over
		if returned || !*fenced {
			t.Errorf("Raft goes on in a term that is not saved: %v, fenced: %v", returned, *fenced)
		}
	})
}

// What cannot be saved is not taken for saved when the store closes: Raft's
// goroutine ends instead, nothing hangs, and the next start knows every term
// that this one was ever in.
func TestPromise_Order_NoTermIsKnownThatIsNotSaved(t *testing.T) {
	c := newTestCluster(t)
	faulty := make(map[cluster.NodeID]*switchedStable)
	c.saves = func(id cluster.NodeID) func(raft.StableStore) raft.StableStore {
		return func(s raft.StableStore) raft.StableStore {
			faulty[id] = &switchedStable{StableStore: s}
			return faulty[id]
		}
	}
	stores := c.found(3)
	old, others := c.leader(stores)
	for _, s := range others {
		faulty[s.cfg.ID].broken.Store(true)
	}
	c.close(old)
	var tried *Store // the first of them; the other then has nobody who votes for it
	var err error
	c.await(others[0], "somebody tries to save a term", func() bool {
		for _, s := range others {
			select {
			case err = <-s.failed:
				tried = s
				return true
			default:
			}
			if s.raft.State() == raft.Leader { // since before, on a busy machine
				_ = s.Transfer(c.ctx())
			}
		}
		return false
	})
	if !errors.Is(err, unix.EIO) {
		t.Fatalf("the term was saved: %v", err)
	}
	c.close(tried)
	known := tried.raft.CurrentTerm()
	saved, _, err := Extent(tried.cfg.Dir)
	if err != nil || known > saved {
		t.Errorf("Raft went on in term %d, and %d is saved (%v)", known, saved, err)
	}
}

// switchedStable can be broken while it is in use.
type switchedStable struct {
	raft.StableStore
	broken atomic.Bool
}

func (s *switchedStable) SetUint64(key []byte, val uint64) error {
	if s.broken.Load() {
		return unix.EIO
	}
	return s.StableStore.SetUint64(key, val)
}

// A start saves the term that it has just read. That needs no room: a node on a
// full disk comes up, and says what is the matter.
func TestAStartOnAFullDiskDoesNotWait(t *testing.T) {
	c := newTestCluster(t)
	c.close(c.found(1)[0])
	cfg := c.config("n-1")
	cfg.Stream = c.net.layer(t, "n-1")
	cfg.saves = func(s raft.StableStore) raft.StableStore {
		return &refusingStable{StableStore: s, err: unix.ENOSPC, times: 1 << 30}
	}
	opened := make(chan error, 1)
	go func() {
		s, err := Open(cfg)
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for room before it runs")
	}
}
