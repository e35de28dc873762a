package fallback

import (
	"sync"
	"time"
)

// watchdog calls fire, once, when something is expected and nothing moves. It
// is its own timer because what it guards may be blocked in a send.
type watchdog struct {
	after time.Duration
	fire  func()

	mu      sync.Mutex
	timer   *time.Timer
	last    time.Time
	pending bool // something is expected
	stopped bool
}

func startWatchdog(after time.Duration, fire func()) *watchdog {
	w := &watchdog{after: after, fire: fire, last: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(after, w.look)
	return w
}

// progress notes that something moved and whether more is expected.
func (w *watchdog) progress(pending bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.pending = time.Now(), pending
}

func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}

func (w *watchdog) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	left := w.after
	if w.pending {
		if left = w.after - time.Since(w.last); left <= 0 {
			w.stopped = true
			w.fire()
			return
		}
	}
	w.timer.Reset(left)
}
