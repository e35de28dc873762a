package raftstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// logs is what the watchdog wraps.
type logs = raft.LogStore

// watchedLogs notes since when a write to the log has been going on. Raft
// itself does not look: a leader whose disk hangs goes on sending heartbeats,
// and stays leader for ever.
type watchedLogs struct {
	logs
	since atomic.Pointer[time.Time] // when the write began (never the wall clock alone: it may be stepped); nil: none is going on
}

// StoreLog implements raft.LogStore.
func (w *watchedLogs) StoreLog(l *raft.Log) error { return w.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. Raft writes from one goroutine at a time.
func (w *watchedLogs) StoreLogs(l []*raft.Log) error {
	begun := time.Now()
	w.since.Store(&begun)
	defer w.since.Store(nil)
	return w.logs.StoreLogs(l)
}

// DeleteRange implements raft.LogStore.
func (w *watchedLogs) DeleteRange(first, last uint64) error { return w.logs.DeleteRange(first, last) }

// stalled tells whether a write has been going on for longer than limit.
func (w *watchedLogs) stalled(limit time.Duration) bool {
	since := w.since.Load()
	return since != nil && time.Since(*since) > limit
}

// watchdog looks after the disk until the store closes: while a write hangs,
// this node falls silent so that the others elect a leader that can write, and
// a leader whose disk is full hands over.
func (s *Store) watchdog() {
	defer s.running.Done()
	var yielded time.Time
	tick := time.NewTicker(min(s.cfg.Tuning.Stall/4, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-tick.C:
		}
		s.lookAtDisk()
		if err := s.room(); err != nil && time.Since(yielded) > yieldEvery && s.leadsOthers() {
			yielded = time.Now()
			s.log.Warn("this node leads and has no room for the log; handing over", "err", err)
			s.handOver()
		}
	}
}

// yieldEvery keeps leaders from taking turns where no disk has room.
const yieldEvery = 10 * time.Second

func (s *Store) lookAtDisk() {
	stalled := s.logs.stalled(s.cfg.Tuning.Stall) || s.stable.stalled(s.cfg.Tuning.Stall)
	if was := s.stream.fenced()&diskHangs != 0; was != stalled { // this goroutine alone changes it
		if stalled {
			s.stream.fence(diskHangs)
			s.log.Error("the disk of the log hangs or fails; this node stays silent until it answers, so that another can lead", "dir", s.cfg.Dir)
		} else {
			s.stream.lift(diskHangs)
			s.log.Info("the disk of the log answers again", "dir", s.cfg.Dir)
		}
		s.leaders.signal()
		s.watchers.notify()
	}
	if stalled || s.cfg.Reserve < 0 {
		return // statfs might hang as well
	}
	if free, err := s.cfg.free(s.cfg.Dir); err == nil {
		s.free.Store(free)
	}
}

func freeSpace(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

// Free is how much room the disk of the log has, as last seen.
func (s *Store) Free() int64 { return s.free.Load() }

// Silent tells whether this node keeps out of the cluster: its disk hangs or
// fails, its log is damaged, or it was silenced.
func (s *Store) Silent() bool { return s.stream.fenced() != 0 }

// Trouble tells why the log cannot be written here, "" if it can.
func (s *Store) Trouble() string {
	if why := s.stable.trouble.Load(); why != nil {
		return "Raft's term or vote cannot be saved in " + s.cfg.Dir + ": " + *why + "; this node stays silent until it can"
	}
	if s.stream.fenced()&diskHangs != 0 {
		return "the disk of " + s.cfg.Dir + " hangs: a write has not come back for " + s.cfg.Tuning.Stall.String() +
			"; this node stays silent until it answers, so that another can lead"
	}
	if err := s.room(); err != nil {
		return err.Error()
	}
	return ""
}

// Failed waits until the disk of the log has failed for good, and says how; nil
// where ctx ends first. The node has to end then: it can neither vote nor lead.
func (s *Store) Failed(ctx context.Context) error {
	select {
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// room returns a *RoomError while the disk is too full for the log to grow.
func (s *Store) room() error {
	if free := s.free.Load(); s.cfg.Reserve >= 0 && free < s.cfg.Reserve {
		return &RoomError{Free: free, Reserve: s.cfg.Reserve}
	}
	return nil
}
