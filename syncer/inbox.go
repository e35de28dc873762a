package syncer

import (
	"cmp"
	"sync"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// hintChunk bounds how many hints one Handle call takes, so that a scan of a
// large tree does not hold up everything else that happens.
const hintChunk = 1024

// inbox is where every goroutine of the executor posts what happened, and from
// which the loop's goroutine takes it. Posting never blocks: a hint that is
// there already costs nothing, and every other event answers work that the
// loop asked for, so the inbox is bounded by what is under way.
type inbox struct {
	mu     sync.Mutex
	hints  map[manifest.Path]bool      // true: a process of this machine changed it
	came   map[manifest.Path]time.Time // directories that came about as a whole: what a scan finds in them did too
	placed Placed
	events []Event
	calls  []func(*Loop)
	ready  chan struct{} // holds a token while something is there
}

func newInbox() *inbox {
	return &inbox{hints: map[manifest.Path]bool{}, came: map[manifest.Path]time.Time{}, placed: Placed{Unknown: true}, ready: make(chan struct{}, 1)}
}

func (b *inbox) signal() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// hint posts Hinted, merged with the hints that are waiting.
func (b *inbox) hint(paths ...manifest.Path) {
	if len(paths) == 0 {
		return
	}
	b.mu.Lock()
	for _, p := range paths {
		b.hints[p] = b.hints[p] || b.inCame(p)
	}
	b.mu.Unlock()
	b.signal()
}

// cameFor is for how long what is found in a directory that came about as a
// whole counts as having come with it.
const cameFor = 30 * time.Second

// witness posts hints that this machine's file events gave; dirs of them stand
// for everything below them too.
func (b *inbox) witness(paths, dirs []manifest.Path) {
	b.mu.Lock()
	for _, p := range paths {
		b.hints[p] = true
	}
	now := time.Now()
	for d, at := range b.came {
		if now.Sub(at) > cameFor {
			delete(b.came, d)
		}
	}
	for _, d := range dirs {
		b.came[d] = now
	}
	b.mu.Unlock()
	b.signal()
}

// anotherRoot forgets what came about in the root of before.
func (b *inbox) anotherRoot() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.came)
}

func (b *inbox) inCame(p manifest.Path) bool {
	for d := p; len(b.came) > 0 && d != ""; d = d.Dir() {
		if at, ok := b.came[d]; ok && time.Since(at) <= cameFor {
			return true
		}
	}
	return false
}

// place posts where the tree lies, if that is news.
func (b *inbox) place(p Placed) {
	b.mu.Lock()
	news := p != b.placed
	b.placed = p
	if news {
		b.events = append(b.events, p)
	}
	b.mu.Unlock()
	if news {
		b.signal()
	}
}

// post adds an event. Answers of the same kind in a row become one event, so
// that what became known together is decided together.
func (b *inbox) post(ev Event) {
	b.mu.Lock()
	defer b.signal()
	defer b.mu.Unlock()
	if n := len(b.events); n > 0 {
		switch last := b.events[n-1].(type) {
		case Looked:
			if ev, ok := ev.(Looked); ok && ev.find == last.find {
				last.Observations = append(last.Observations, ev.Observations...)
				b.events[n-1] = last
				return
			}
		case Fetched:
			if ev, ok := ev.(Fetched); ok {
				last.Have = append(last.Have, ev.Have...)
				last.Failed = append(last.Failed, ev.Failed...)
				last.Why = cmp.Or(last.Why, ev.Why)
				b.events[n-1] = last
				return
			}
		}
	}
	b.events = append(b.events, ev)
}

// call has fn run by the loop's goroutine, between two events.
func (b *inbox) call(fn func(*Loop)) {
	b.mu.Lock()
	b.calls = append(b.calls, fn)
	b.mu.Unlock()
	b.signal()
}

// take returns what is there: hints first, because whatever else was posted
// (Scanned above all) may promise that they are in.
func (b *inbox) take() ([]Event, []func(*Loop)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Event
	for len(b.hints) > 0 {
		var seen, others Hinted
		seen.Witnessed = true
		for p, witnessed := range b.hints {
			to := &others
			if witnessed {
				to = &seen
			}
			to.Paths = append(to.Paths, p)
			delete(b.hints, p)
			if len(to.Paths) == hintChunk {
				break
			}
		}
		for _, h := range []Hinted{seen, others} {
			if len(h.Paths) > 0 {
				out = append(out, h)
			}
		}
	}
	out = append(out, b.events...)
	calls := b.calls
	b.events, b.calls = nil, nil
	return out, calls
}
