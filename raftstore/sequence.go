package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

const (
	// seqRange is how many sequences are reserved with one write to the disk.
	seqRange = 4096
	// seqSpan is how far the sequences of open proposals may lie apart: well
	// inside the machine's Window, else an outcome might be forgotten before
	// its proposer has heard it.
	seqSpan = Window / 2
)

var seqKey = []byte("gatesync-next-sequence")

// sequence hands out this node's sequences: never the same one twice, not even
// after a crash, and not too many at once.
type sequence struct {
	stable *disk

	mu       sync.Mutex
	next     uint64
	reserved uint64              // below it, sequences may be handed out
	open     map[uint64]struct{} // of proposals without an answer
	freed    beacon
}

// newSequence goes on where the last run of this node may have been, and not
// below floor.
func newSequence(stable *disk, floor uint64) (*sequence, error) {
	next, err := stable.GetUint64(seqKey)
	if err != nil && !errors.Is(err, errKeyNotFound) {
		return nil, fmt.Errorf("read the next sequence: %w", err)
	}
	next = max(next, floor, 1)
	return &sequence{stable: stable, next: next, reserved: next, open: make(map[uint64]struct{})}, nil
}

// take returns the next sequence, once few enough are open. Give it back with
// release when its proposal is over.
func (q *sequence) take(ctx context.Context) (uint64, error) {
	for {
		freed := q.freed.wait()
		seq, err := q.tryTake()
		if seq != 0 || err != nil {
			return seq, err
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return 0, fmt.Errorf("too many proposals of this node are waiting for an answer: %w", ctx.Err())
		}
	}
}

// tryTake returns 0 where too many are open.
func (q *sequence) tryTake() (uint64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for seq := range q.open {
		if q.next-seq >= seqSpan {
			return 0, nil
		}
	}
	if q.next == q.reserved {
		if err := q.stable.SetUint64(seqKey, q.next+seqRange); err != nil {
			return 0, fmt.Errorf("reserve sequences: %w", err)
		}
		q.reserved = q.next + seqRange
	}
	seq := q.next
	q.next++
	q.open[seq] = struct{}{}
	return seq, nil
}

func (q *sequence) release(seq uint64) {
	q.mu.Lock()
	delete(q.open, seq)
	q.mu.Unlock()
	q.freed.signal()
}
