package raftstore

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
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
// the store; nothing is said any more by then.
func TestATermOnAFailedDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &refusingStable{StableStore: raft.NewInmemStore(), err: unix.EIO, times: 1}
		s, closing, failed, fenced := newSteadfast(disk)
		saved := make(chan error, 1)
		go func() { saved <- s.SetUint64([]byte("term"), 7) }()
		if err := <-failed; !errors.Is(err, unix.EIO) {
			t.Errorf("reported: %v", err)
		}
		time.Sleep(time.Hour)
		if disk.tried != 1 || *fenced {
			t.Errorf("tried %d times, fenced: %v", disk.tried, *fenced)
		}
		close(closing)
		if err := <-saved; err != nil || !*fenced {
			t.Errorf("ended with %v, fenced: %v", err, *fenced)
		}
	})
}
