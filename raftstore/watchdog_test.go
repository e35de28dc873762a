package raftstore

import (
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/sealed"
)

// hangingLogs is a disk whose writes hang while the gate is shut.
type hangingLogs struct {
	logs
	mu   sync.Mutex
	gate chan struct{} // nil: open
}

func (h *hangingLogs) shut() (open func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gate := make(chan struct{})
	h.gate = gate
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.gate = nil
		close(gate)
	})
}

func (h *hangingLogs) StoreLogs(l []*raft.Log) error {
	h.mu.Lock()
	gate := h.gate
	h.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return h.logs.StoreLogs(l)
}

func TestALeaderWhoseDiskHangsIsReplaced(t *testing.T) {
	c := newTestCluster(t)
	c.tune.Stall = 400 * time.Millisecond
	disks := map[cluster.NodeID]*hangingLogs{}
	c.wrap = func(id cluster.NodeID) func(logs) logs {
		return func(l logs) logs {
			disks[id] = &hangingLogs{logs: l}
			return disks[id]
		}
	}
	stores := c.found(3)
	old, others := c.leader(stores)
	open := disks[old.cfg.ID].shut()
	t.Cleanup(open) // before the stores close
	c.mkdir(others[0], "d")
	if id, _ := others[0].Leader(); id == old.cfg.ID {
		t.Fatal("the leader whose disk hangs still leads")
	}
	// It may lead no more when the disk begins to hang, and notices that later.
	c.await(old, "no quorum, for it cannot write", func() bool { return !old.Quorum() })
	open()
	c.await(old, "the others again", old.CaughtUp)
	c.agree(stores...)
}

// TestCloseDoesNotHangWithTheDisk: it gives up in bounded time, and says so.
func TestCloseDoesNotHangWithTheDisk(t *testing.T) {
	c := newTestCluster(t)
	var disk *hangingLogs
	c.wrap = func(cluster.NodeID) func(logs) logs {
		return func(l logs) logs {
			disk = &hangingLogs{logs: l}
			return disk
		}
	}
	s := c.found(1)[0]
	c.await(s, "caught up", s.CaughtUp)
	open := disk.shut()
	failed := make(chan error, 1)
	go func() {
		_, err := s.Propose(c.ctx(), makeDir("d"))
		failed <- err
	}()
	c.await(s, "a write that hangs", func() bool { return s.logs.stalled(0) })
	err := s.Close()
	open() // the rest may end now
	if !errors.Is(err, ErrNotStopped) {
		t.Fatalf("close: %v", err)
	}
	if err := <-failed; !errors.Is(err, ErrClosed) {
		t.Fatalf("the proposal: %v", err)
	}
	s.inside.Wait()
	s.running.Wait()
	_ = s.disk.Close()
	s.closeErr = nil // told above; the test's own Close is to be silent
}

func TestAFullDiskRefusesEarly(t *testing.T) {
	c := newTestCluster(t)
	s := c.found(1)[0]
	s.cfg.Reserve = math.MaxInt64
	s.lookAtDisk()
	_, _, err := s.ApplyLocal(c.ctx(), noop())
	var room *RoomError
	if !errors.Is(err, ErrNoRoom) || !errors.As(err, &room) || room.Free <= 0 {
		t.Fatalf("error %v, want no room", err)
	}
	if s.Trouble() == "" {
		t.Error("the store says nothing of it")
	}
	s.cfg.Reserve = 1
	s.lookAtDisk()
	c.mkdir(s, "d")
	if why := s.Trouble(); why != "" {
		t.Errorf("trouble without a reason: %s", why)
	}
}

// A leader whose disk is full refuses the writes of all: one that has room
// takes over, and the full node's own proposals go there.
func TestALeaderWithAFullDiskHandsOver(t *testing.T) {
	c := newTestCluster(t)
	c.tune.Stall = 400 * time.Millisecond // the disk is looked at four times as often
	var mu sync.Mutex
	full := cluster.NodeID("")
	c.free = func(id cluster.NodeID) (int64, error) {
		mu.Lock()
		defer mu.Unlock()
		if id == full {
			return 10, nil
		}
		return 1 << 30, nil
	}
	stores := c.found(3)
	old, others := c.leader(stores)
	mu.Lock()
	full = old.cfg.ID
	mu.Unlock()
	c.await(others[0], "another leader", func() bool {
		id, ok := others[0].Leader()
		return ok && id != old.cfg.ID
	})
	c.mkdir(others[1], "of-a-node-with-room")
	c.mkdir(old, "of-the-full-node")
	c.await(old, "it says that its disk is full", func() bool { return old.Trouble() != "" })
	c.agree(stores...)
}

// peekingLogs looks around in the middle of a write.
type peekingLogs struct {
	logs
	peek func()
}

func (p peekingLogs) StoreLogs(l []*raft.Log) error {
	p.peek()
	return p.logs.StoreLogs(l)
}

// The limit of a hanging write goes by elapsed time: the wall clock may be
// stepped while it runs.
func TestAStallIsNotTakenFromTheWallClock(t *testing.T) {
	w := &watchedLogs{}
	var begun string
	w.logs = peekingLogs{raft.NewInmemStore(), func() { begun = w.since.Load().String() }}
	if err := w.StoreLog(&raft.Log{Index: 1}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(begun, " m=") {
		t.Errorf("the begin of a write has no monotonic reading: %s", begun)
	}
	if w.stalled(0) {
		t.Error("a write that has ended stalls")
	}
}

// A disk that answers again lifts no fence that stands for another reason.
func TestAFenceForGoodIsNotLifted(t *testing.T) {
	for _, why := range []reason{logDamaged, termNotSaved, silenced} {
		for _, first := range []bool{true, false} { // before and after the disk hung
			s := newStream(nil, "n-1")
			if first {
				s.fence(why)
			}
			s.fence(diskHangs)
			if !first {
				s.fence(why)
			}
			s.lift(diskHangs)
			if s.fenced() != why {
				t.Errorf("reason %b is left of %b", s.fenced(), why)
			}
			if _, err := s.Dial("n-2", time.Second); !errors.Is(err, errFenced) {
				t.Errorf("a node that is fenced for good dials: %v", err)
			}
		}
	}
	s := newStream(nil, "n-1")
	s.fence(diskHangs)
	if s.lift(diskHangs); s.fenced() != 0 {
		t.Error("a disk that answers again stays shut")
	}
}

// The watchdog looks at the disk while the log turns out to be damaged.
func TestTheWatchdogLeavesADamagedLogFenced(t *testing.T) {
	c := newTestCluster(t)
	s := c.found(1)[0]
	begun := time.Now().Add(-time.Hour)
	s.logs.since.Store(&begun)
	s.lookAtDisk()
	s.report(&sealed.DamagedError{File: logFile})
	s.logs.since.Store(nil)
	s.lookAtDisk()
	// The watchdog itself may be late with what it saw before; it looks again.
	c.await(s, "fenced for the log alone", func() bool { return s.stream.fenced() == logDamaged })
	if !s.Silent() || s.Quorum() {
		t.Errorf("silent: %v", s.Silent())
	}
}
