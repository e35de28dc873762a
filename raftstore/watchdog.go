package raftstore

import (
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
	since atomic.Int64 // Unix nanoseconds at which the write began; 0: none is going on
}

// StoreLog implements raft.LogStore.
func (w *watchedLogs) StoreLog(l *raft.Log) error { return w.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. Raft writes from one goroutine at a time.
func (w *watchedLogs) StoreLogs(l []*raft.Log) error {
	w.since.Store(time.Now().UnixNano())
	defer w.since.Store(0)
	return w.logs.StoreLogs(l)
}

// DeleteRange implements raft.LogStore.
func (w *watchedLogs) DeleteRange(first, last uint64) error { return w.logs.DeleteRange(first, last) }

// stalled tells whether a write has been going on for longer than limit.
func (w *watchedLogs) stalled(limit time.Duration) bool {
	since := w.since.Load()
	return since != 0 && time.Since(time.Unix(0, since)) > limit
}

// watchdog looks after the disk until the store closes: while a write hangs,
// this node falls silent so that the others elect a leader that can write.
func (s *Store) watchdog() {
	defer s.running.Done()
	tick := time.NewTicker(min(s.cfg.Tuning.Stall/4, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-tick.C:
		}
		s.lookAtDisk()
	}
}

func (s *Store) lookAtDisk() {
	select {
	case <-s.damaged:
		return // silent for good
	default:
	}
	stalled := s.logs.stalled(s.cfg.Tuning.Stall)
	if s.stalled.Swap(stalled) != stalled {
		s.stream.fence(stalled)
		if stalled {
			s.log.Error("the disk of the log hangs; this node stays silent until it answers, so that another can lead", "dir", s.cfg.Dir)
		} else {
			s.log.Info("the disk of the log answers again", "dir", s.cfg.Dir)
		}
		s.leaders.signal()
		s.watchers.notify()
	}
	if stalled || s.cfg.Reserve < 0 {
		return // statfs might hang as well
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.cfg.Dir, &fs); err != nil {
		return
	}
	s.free.Store(int64(fs.Bavail) * fs.Bsize)
}

// room returns a *RoomError while the disk is too full for the log to grow.
func (s *Store) room() error {
	if free := s.free.Load(); s.cfg.Reserve >= 0 && free < s.cfg.Reserve {
		return &RoomError{Free: free, Reserve: s.cfg.Reserve}
	}
	return nil
}
