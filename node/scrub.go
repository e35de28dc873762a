package node

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// scrubFloor is the least pace of a scrub, in bytes a second: a small store is
// read in one quiet go, and not drawn out over a week.
const scrubFloor = 64 << 10

// scrubber reads the whole blob store again and again, so slowly that nobody
// notices, and finds what the disk has lost before anybody needs it. What to do
// about it is the mender's. One goroutine; the counters may be read from any.
type scrubber struct {
	blobs *recentBlobs
	every time.Duration // one pass
	slog  *slog.Logger

	bytes  atomic.Uint64
	passes atomic.Uint64
}

func (s *scrubber) run(ctx context.Context) error {
	for {
		begun := time.Now()
		if err := s.pass(ctx); err != nil && ctx.Err() == nil {
			s.slog.Warn("the scrub of the blob store ended early", "err", err)
		}
		if ctx.Err() != nil {
			return nil
		}
		s.passes.Add(1)
		if sleep(ctx, max(time.Minute, s.every-time.Since(begun))) != nil {
			return nil
		}
	}
}

func (s *scrubber) pass(ctx context.Context) error {
	rate := max(scrubFloor, float64(s.blobs.Stats().Bytes)/s.every.Seconds())
	pace := func(n int) error {
		s.bytes.Add(uint64(n))
		return sleep(ctx, time.Duration(float64(n)/rate*float64(time.Second)))
	}
	return s.blobs.Scrub(ctx, pace, func(ref manifest.BlobRef, err error) {
		if err != nil {
			s.slog.Error("the scrub found damage in the blob store", "blob", ref.Digest.String(), "err", err)
		}
	})
}

// sleep waits; its error is ctx's.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
