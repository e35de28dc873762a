package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// stages runs a node's parts and stops them in the reverse order of their
// start, each within a limit of its own: a part that hangs (in a mount that
// does not answer) cannot keep the others from ending in order. One goroutine
// starts and stops; the parts run on goroutines of their own.
type stages struct {
	log    *slog.Logger
	list   []*stage
	failed chan error // the first part that ended by itself with an error
	// patience is how much longer than their limits all parts that flush have,
	// together: a busy disk takes seconds for a flush, which nothing can cancel,
	// and one that hangs is waited for once, not once for each part.
	patience time.Duration
}

type stage struct {
	name   string
	stop   func()
	done   <-chan struct{}
	limit  time.Duration
	onDisk bool
}

// flushes tells that this part may be in the middle of a write to the data
// directory when it is to end.
func (s *stage) flushes() { s.onDisk = true }

func newStages(log *slog.Logger, patience time.Duration) *stages {
	return &stages{log: log, failed: make(chan error, 1), patience: cmp.Or(patience, 5*time.Second)}
}

// run starts a part: fn works until its context ends.
func (s *stages) run(name string, limit time.Duration, fn func(context.Context) error) *stage {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	st := &stage{name: name, stop: cancel, done: done, limit: limit}
	s.list = append(s.list, st)
	go func() {
		defer close(done)
		if err := fn(ctx); err != nil && ctx.Err() == nil {
			s.fail(fmt.Errorf("%s: %w", name, err))
		}
	}()
	return st
}

// closer enters a part that was opened and has no Run: it is closed when its
// turn to stop comes.
func (s *stages) closer(name string, limit time.Duration, fn func() error) *stage {
	done := make(chan struct{})
	st := &stage{name: name, done: done, limit: limit, stop: func() {
		go func() {
			defer close(done)
			if err := fn(); err != nil {
				s.log.Warn("did not close well", "part", name, "err", err)
			}
		}()
	}}
	s.list = append(s.list, st)
	return st
}

func (s *stages) fail(err error) {
	select {
	case s.failed <- err:
	default: // only the first is told
	}
}

// StuckError: parts of the node did not end in time.
type StuckError struct{ Parts []string }

func (e *StuckError) Error() string {
	return fmt.Sprintf("these parts did not end in time and were left behind: %v (a mount or a disk that hangs?)", e.Parts)
}

// stop stops everything in the reverse order and waits.
func (s *stages) stop() error {
	var stuck []string
	for i := len(s.list) - 1; i >= 0; i-- {
		st := s.list[i]
		limit := st.limit
		if st.onDisk {
			limit += s.patience
		}
		begun := time.Now()
		st.stop()
		timer := time.NewTimer(limit)
		select {
		case <-st.done:
		case <-timer.C:
			stuck = append(stuck, st.name)
			s.log.Warn("did not end in time", "part", st.name, "limit", limit)
		}
		timer.Stop()
		if over := time.Since(begun) - st.limit; st.onDisk && over > 0 {
			s.patience = max(0, s.patience-over)
		}
	}
	s.list = nil
	var err error
	if len(stuck) > 0 {
		err = &StuckError{Parts: stuck}
	}
	select {
	case failed := <-s.failed:
		return errors.Join(failed, err)
	default:
		return err
	}
}
