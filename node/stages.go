package node

import (
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
	list   []stage
	failed chan error // the first part that ended by itself with an error
}

type stage struct {
	name  string
	stop  func()
	done  <-chan struct{}
	limit time.Duration
}

func newStages(log *slog.Logger) *stages {
	return &stages{log: log, failed: make(chan error, 1)}
}

// run starts a part: fn works until its context ends.
func (s *stages) run(name string, limit time.Duration, fn func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.list = append(s.list, stage{name, cancel, done, limit})
	go func() {
		defer close(done)
		if err := fn(ctx); err != nil && ctx.Err() == nil {
			s.fail(fmt.Errorf("%s: %w", name, err))
		}
	}()
}

// closer enters a part that was opened and has no Run: it is closed when its
// turn to stop comes.
func (s *stages) closer(name string, limit time.Duration, fn func() error) {
	done := make(chan struct{})
	s.list = append(s.list, stage{name, func() {
		go func() {
			defer close(done)
			if err := fn(); err != nil {
				s.log.Warn("did not close well", "part", name, "err", err)
			}
		}()
	}, done, limit})
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
	return fmt.Sprintf("these parts did not end in time and were left behind: %v (a mount that hangs?)", e.Parts)
}

// stop stops everything in the reverse order and waits.
func (s *stages) stop() error {
	var stuck []string
	for i := len(s.list) - 1; i >= 0; i-- {
		st := s.list[i]
		st.stop()
		timer := time.NewTimer(st.limit)
		select {
		case <-st.done:
		case <-timer.C:
			stuck = append(stuck, st.name)
			s.log.Warn("did not end in time", "part", st.name, "limit", st.limit)
		}
		timer.Stop()
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
