package syncer

import (
	"context"
	"fmt"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// Rescan scans the whole tree and waits for the end of the scan. What it found
// is being worked on then: Settle waits for that too.
func (s *Syncer) Rescan(ctx context.Context) error {
	if lost, _ := s.root.state(); lost != "" {
		return fmt.Errorf("%w: %s", ErrRootLost, lost)
	}
	return s.scanner.wait(ctx, s.scanner.request(""))
}

// Settle waits until everything that was written into the tree before the call
// has been offered to the log, and everything committed has been applied, but
// for paths that are busy or held.
func (s *Syncer) Settle(ctx context.Context) error {
	newest, _ := s.cfg.Log.View(s.cfg.Tree)
	if err := s.Rescan(ctx); err != nil {
		return err
	}
	// Right after a start the loop may not have heard of the log at all.
	if err := s.until(ctx, func(l *Loop) bool { return l.Status().Revision >= newest.Revision }); err != nil {
		return err
	}
	// What the scan has hinted at is a work by now; what is written from here on
	// is nobody's to wait for.
	mark, err := ask(ctx, s, (*Loop).Mark)
	if err != nil {
		return err
	}
	return s.until(ctx, func(l *Loop) bool { return l.Unsettled(mark) == 0 })
}

// Applied is the revision up to which the disk follows the log. ctx bounds the
// wait for the loop, not for a revision.
func (s *Syncer) Applied(ctx context.Context) (manifest.Revision, error) {
	return ask(ctx, s, func(l *Loop) manifest.Revision { return l.Status().Applied })
}

// WaitApplied waits until the disk follows the log up to a revision.
func (s *Syncer) WaitApplied(ctx context.Context, rev manifest.Revision) error {
	return s.until(ctx, func(l *Loop) bool { return l.Status().Applied >= rev })
}

// until waits until the loop is as wanted. ok is asked on the loop's goroutine.
func (s *Syncer) until(ctx context.Context, ok func(*Loop) bool) error {
	for {
		next := s.rounds.next() // before asking: no round is missed
		start := time.Now()
		reached, err := ask(ctx, s, ok)
		if err != nil {
			return err
		}
		if reached {
			return nil
		}
		// With many paths at work the question itself costs the loop time: ask
		// for no more than a fifth of it.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(4 * time.Since(start)):
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
		}
	}
}
