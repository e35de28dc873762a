package raftstore

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// saveAgain is the pause after the term or the vote could not be saved.
const saveAgain = 500 * time.Millisecond

// steadfast saves Raft's term and vote. Raft panics where its term cannot be
// saved; this one waits instead. Raft's main goroutine stands still meanwhile,
// and the watchdog fences the node, so that nothing that was not saved is ever
// said. Where the disk is full or read-only it goes on by itself; any other
// failure of a disk is for good and reported by failed.
type steadfast struct {
	raft.StableStore
	log     *slog.Logger
	closing <-chan struct{}
	fence   func()       // shuts the connections, for good
	failed  chan<- error // with room for one

	begun   atomic.Pointer[time.Time] // since when a write has been going on; nil: none is
	trouble atomic.Pointer[string]    // why the write that is going on has failed so far
}

// Set implements raft.StableStore.
func (s *steadfast) Set(key, val []byte) error {
	return s.save(func() error { return s.StableStore.Set(key, val) })
}

// SetUint64 implements raft.StableStore.
func (s *steadfast) SetUint64(key []byte, val uint64) error {
	// A start saves the term that it has just read: that must not wait for room.
	if now, err := s.GetUint64(key); err == nil && now == val {
		return nil
	}
	return s.save(func() error { return s.StableStore.SetUint64(key, val) })
}

func (s *steadfast) save(do func() error) error {
	now := time.Now()
	s.begun.Store(&now)
	defer s.begun.Store(nil)
	for {
		err := do()
		if err == nil {
			if s.trouble.Swap(nil) != nil {
				s.log.Info("Raft's term and vote can be saved again")
			}
			return nil
		}
		var again <-chan time.Time // never, where a second attempt proves nothing
		if passing(err) {
			again = time.After(saveAgain)
		}
		why := err.Error()
		if s.trouble.Swap(&why) == nil {
			s.log.Error("Raft's term or vote cannot be saved; this node stays silent until it can", "err", err)
		}
		if again == nil {
			select {
			case s.failed <- fmt.Errorf("the log's disk has failed: Raft's term or vote cannot be saved: %w", err):
			default:
			}
		}
		select {
		case <-again:
		case <-s.closing:
			// What was not saved is not said either: not to the others, and not
			// to Raft, which would go on in a term that the next start knows
			// nothing of. Its goroutine ends here, as in halt.
			s.fence()
			runtime.Goexit()
		}
	}
}

// passing tells whether a failure to write ends by itself. After others (EIO)
// the kernel may say that all is well although nothing was written.
func passing(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}

// stalled tells whether a write has failed, or has been going on for longer
// than limit.
func (s *steadfast) stalled(limit time.Duration) bool {
	begun := s.begun.Load()
	return s.trouble.Load() != nil || begun != nil && time.Since(*begun) > limit
}
