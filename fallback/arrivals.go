package fallback

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// arrivals are the blobs that are on their way here, so that nothing is asked
// for that somebody is sending already.
type arrivals struct {
	mu sync.Mutex
	m  map[manifest.Digest]*arrival
}

// arrival is one such blob.
type arrival struct {
	done  chan struct{} // closed when it has come, or will not
	pulse *pulse        // of the stream that brings it
	asked bool          // this node asked for it: it comes whatever becomes of pushes
}

// pulse is when a stream last made progress.
// It goes by time's monotonic reading: the wall clock may be stepped.
type pulse struct{ at atomic.Pointer[time.Time] }

func (p *pulse) beat() {
	now := time.Now()
	p.at.Store(&now)
}

// quiet is for a pulse that has beaten.
func (p *pulse) quiet() time.Duration { return time.Since(*p.at.Load()) }

// begin notes that a stream brings d; nil where another one does already.
func (a *arrivals) begin(d manifest.Digest, p *pulse, asked bool) *arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.m[d] != nil {
		return nil
	}
	if a.m == nil {
		a.m = map[manifest.Digest]*arrival{}
	}
	v := &arrival{done: make(chan struct{}), pulse: p, asked: asked}
	a.m[d] = v
	return v
}

// end says that the wait for d is over; v is what begin returned.
func (a *arrivals) end(d manifest.Digest, v *arrival) {
	if v == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.m[d] == v {
		delete(a.m, d)
		close(v.done)
	}
}

func (a *arrivals) find(d manifest.Digest) *arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.m[d]
}

// wait returns when the blob has come or will not, when its stream has been
// quiet for too long, or when ctx ends.
func (v *arrival) wait(ctx context.Context, quiet time.Duration) {
	t := time.NewTimer(quiet - v.pulse.quiet()) // what waits behind others does not begin to wait anew
	defer t.Stop()
	for {
		select {
		case <-v.done:
			return
		case <-ctx.Done():
			return
		case <-t.C:
			left := quiet - v.pulse.quiet()
			if left <= 0 {
				return
			}
			t.Reset(left)
		}
	}
}
