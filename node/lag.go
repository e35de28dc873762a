package node

import (
	"sync"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// lagTracker knows when each recent revision was first seen here, so that it
// can tell for how long a tree has been behind. Under a steady stream of
// writes a tree is always a little behind; what counts is the age of the
// oldest revision that it lacks. Safe for concurrent use.
type lagTracker struct {
	mu   sync.Mutex
	seen []sighting // ascending
}

// sighting: revisions up to this one, beyond those of the sighting before,
// were first seen at this time.
type sighting struct {
	upTo manifest.Revision
	at   time.Time
}

const (
	lagGrain     = 50 * time.Millisecond // sightings closer than this are one
	lagSightings = 4096                  // at most; older ones are then merged
)

// see notes that the log has come to rev.
func (l *lagTracker) see(rev manifest.Revision, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.seen); n > 0 {
		last := &l.seen[n-1]
		if rev <= last.upTo {
			return
		}
		if now.Sub(last.at) < lagGrain {
			last.upTo = rev
			return
		}
		if n >= lagSightings {
			for i := 1; i < n; i += 2 { // pairs become one, of the earlier time
				l.seen[i/2] = sighting{l.seen[i].upTo, l.seen[i-1].at}
			}
			l.seen = l.seen[:n/2]
		}
	}
	l.seen = append(l.seen, sighting{rev, now})
}

// lag tells for how long something that has applied a revision is behind.
func (l *lagTracker) lag(applied manifest.Revision, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.seen {
		if s.upTo > applied {
			return max(0, now.Sub(s.at))
		}
	}
	return 0
}
