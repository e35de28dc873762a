package raftstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

// Barrier returns once this node has applied everything that was committed
// when it was called. It costs an entry of the log; callers that come at the
// same time share one.
func (s *Store) Barrier(ctx context.Context) error {
	index, err := s.mark(ctx)
	if err != nil {
		return err
	}
	for {
		moved := s.applied.wait()
		if s.fsm.applied.Load() >= index {
			return nil
		}
		select {
		case <-moved:
		case <-s.closing:
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("this node has applied the log up to %d, not yet up to %d: %w", s.fsm.applied.Load(), index, ctx.Err())
		}
	}
}

// barrierTry is how long one attempt to commit a barrier may take.
const barrierTry = 2 * time.Second

// barriers are the empty entries by which readers learn what is committed. At
// most one is on its way, and at most one waits for its turn: whoever comes
// joins the latter, for the former may stand in the log before what was
// acknowledged to the caller just now.
type barriers struct {
	mu   sync.Mutex
	sent *barrier // on its way; nil: none is
	next *barrier // not sent yet
}

// barrier is one such entry.
type barrier struct {
	ctx    context.Context // ends when nobody waits any more
	cancel context.CancelFunc
	users  int           // guarded by barriers.mu
	over   chan struct{} // closed when index or err is known
	index  uint64
	err    error
}

// mark commits an empty entry behind everything that is committed now, and
// returns its index.
func (s *Store) mark(ctx context.Context) (uint64, error) {
	b, err := s.joinBarrier()
	if err != nil {
		return 0, err
	}
	defer s.barriers.leave(b)
	select {
	case <-b.over:
		return b.index, b.err
	case <-ctx.Done():
	}
	if !s.Quorum() {
		return 0, fmt.Errorf("%w (%w)", cluster.ErrNoQuorum, ctx.Err())
	}
	return 0, fmt.Errorf("what is committed could not be learnt in time: %w", ctx.Err())
}

// joinBarrier finds the barrier that counts for who comes now.
func (s *Store) joinBarrier() (*barrier, error) {
	s.entering.RLock()
	defer s.entering.RUnlock()
	if s.isClosing() {
		return nil, ErrClosed
	}
	s.barriers.mu.Lock()
	defer s.barriers.mu.Unlock()
	b := s.barriers.next
	if b == nil {
		b = &barrier{over: make(chan struct{})}
		b.ctx, b.cancel = context.WithCancel(context.Background())
		s.barriers.next = b
	}
	b.users++
	if s.barriers.sent == nil {
		s.barriers.sent, s.barriers.next = b, nil
		s.inside.Go(func() { s.sendBarriers(b) })
	}
	return b, nil
}

// sendBarriers sends one barrier after the other, until nobody waits for one.
func (s *Store) sendBarriers(b *barrier) {
	for b != nil {
		b.index, b.err = s.sendBarrier(b.ctx)
		b.cancel()
		close(b.over)
		s.barriers.mu.Lock()
		b = s.barriers.next
		s.barriers.sent, s.barriers.next = b, nil
		s.barriers.mu.Unlock()
	}
}

// sendBarrier commits an empty entry. It asks anew where an answer may have been
// lost: everybody who comes later waits for it.
func (s *Store) sendBarrier(ctx context.Context) (index uint64, err error) {
	for {
		try, cancel := context.WithTimeout(ctx, barrierTry)
		_, index, err = s.do(try, noop())
		late := try.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil {
			return index, err
		}
	}
}

// leave gives a barrier up for one who waited; the last one ends it.
func (q *barriers) leave(b *barrier) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if b.users--; b.users > 0 {
		return
	}
	b.cancel()
	if q.next == b {
		q.next = nil // whoever comes now begins another
	}
}
