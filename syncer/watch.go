package syncer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/manifest"
)

const (
	// createDelay holds back the hint of a created name: where it is a file
	// that is being written, the close follows and is the better moment; a
	// hard link or a symlink has nothing else to announce it.
	createDelay = 5 * time.Millisecond
	// modifyDelay holds back the hint of a write, for the same reason; it
	// matters for truncate(2), which is followed by no close.
	modifyDelay = 100 * time.Millisecond
)

// watcher turns the kernel's events into hints. It promises latency, never
// completeness: after an overflow, or where a watch could not be set, it asks
// for a scan. Directories are watched by the scanner, before it lists them.
type watcher struct {
	s *Syncer

	mu      sync.Mutex
	n       *notifier // nil: no inotify instance could be had
	ended   bool      // closed for good: a root that is found now is not watched
	changed chan struct{}
	limited string // why not everything is watched, "" if it is
	refused string // … as far as the scan that is running has found out

	later map[manifest.Path]time.Time // hints that are held back; run's own
}

func newWatcher(s *Syncer) *watcher {
	return &watcher{s: s, changed: make(chan struct{}, 1), later: map[manifest.Path]time.Time{}}
}

// reset starts anew for a root that was opened: nothing is watched until the
// next scan. What happened before the scan is seen by it.
func (w *watcher) reset(base string) {
	n, err := newNotifier(base)
	w.mu.Lock()
	old := w.n
	w.n, w.limited = n, ""
	switch {
	case w.ended && err == nil:
		w.n, old = nil, n
	case err != nil:
		w.n = nil
		w.limited = fmt.Sprintf("%v: raise fs.inotify.max_user_instances; until then changes are found by scans", err)
		w.s.log.Warn("no file events", "err", err)
	}
	w.mu.Unlock()
	if old != nil {
		_ = old.close()
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *watcher) current() *notifier {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// add watches a directory that is about to be listed.
func (w *watcher) add(dir manifest.Path) {
	n := w.current()
	if n == nil {
		return
	}
	err := n.add(dir)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return
	case errors.Is(err, unix.ENOSPC):
		err = fmt.Errorf("%d directories are watched and the system allows no more: raise fs.inotify.max_user_watches; until then changes elsewhere are found by scans", n.len())
	default:
		err = fmt.Errorf("cannot watch %q: %w; changes there are found by scans", dir, err)
	}
	w.mu.Lock()
	fresh := w.limited == "" && w.n == n
	if w.n == n {
		w.limited, w.refused = err.Error(), err.Error()
	}
	w.mu.Unlock()
	if fresh {
		w.s.log.Warn("not everything is watched", "err", err)
	}
}

// trouble tells why not everything is watched, "" if it is.
func (w *watcher) trouble() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.limited
}

// scanBegins and scanEnds frame a complete scan, which tries every watch again:
// a limit may have been raised.
func (w *watcher) scanBegins() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused = ""
}

func (w *watcher) scanEnds() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n != nil {
		w.limited = w.refused
	}
}

// close ends the watching, and with it a read that is under way.
func (w *watcher) close() error {
	w.mu.Lock()
	n := w.n
	w.n, w.ended = nil, true
	w.mu.Unlock()
	if n == nil {
		return nil
	}
	return n.close()
}

// run reads events until ctx ends. One goroutine of Run; a second one reads
// for it, because a read cannot wait for a timer too.
func (w *watcher) run(ctx context.Context) {
	batches := make(chan []notice)
	var reader sync.WaitGroup
	reader.Go(func() { w.readAll(ctx, batches) })
	defer reader.Wait()
	defer func() { _ = w.close() }() // ends the read

	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case batch := <-batches:
			w.take(batch)
		case <-timer.C:
			w.flushLater(time.Now())
		}
		if at, ok := w.nextLater(); ok {
			timer.Reset(time.Until(at))
		} else {
			timer.Stop()
		}
	}
}

// readAll reads from whichever notifier is the current one.
func (w *watcher) readAll(ctx context.Context, batches chan<- []notice) {
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n := w.current()
		if n == nil {
			select {
			case <-ctx.Done():
			case <-w.changed:
			}
			continue
		}
		batch, err := n.read(buf, nil)
		if len(batch) > 0 {
			select {
			case <-ctx.Done():
				return
			case batches <- batch:
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, errOverflow):
			w.s.log.Info("file events were lost: scanning")
			w.s.scanner.request("")
		default: // closed by reset or by the end of Run
			w.mu.Lock()
			if w.n == n {
				w.n = nil
			}
			w.mu.Unlock()
			if ctx.Err() == nil && w.current() == nil {
				w.s.log.Warn("file events ended; changes are found by scans", "err", err)
			}
		}
	}
}

// take turns a batch of events into hints and scans.
func (w *watcher) take(batch []notice) {
	now := map[manifest.Path]struct{}{}
	for _, ev := range batch {
		if ev.name == "" {
			w.takeSelf(ev)
			continue
		}
		p, err := manifest.ParsePath(string(ev.dir.Join(ev.name)))
		isDir := ev.mask&unix.IN_ISDIR != 0
		if err != nil || w.s.cfg.Ignore.Match(p, isDir) {
			continue
		}
		switch {
		case isDir && ev.mask&unix.IN_MOVED_FROM != 0:
			if n := w.current(); n != nil {
				n.drop(p)
			}
			w.s.scanner.request(p) // everything that the ancestor knows there
		case isDir && ev.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0:
			w.s.scanner.request(p)
		case ev.mask&^unix.IN_CREATE&watchMask == 0:
			w.hold(p, createDelay)
			continue
		case ev.mask&^unix.IN_MODIFY&watchMask == 0:
			w.hold(p, modifyDelay)
			continue
		}
		delete(w.later, p)
		now[p] = struct{}{}
	}
	paths := make([]manifest.Path, 0, len(now))
	for p := range now {
		paths = append(paths, p)
	}
	w.s.inbox.hint(paths...)
}

// takeSelf takes an event about a watched directory itself. Of the tree's
// directories their parents tell; the root has none.
func (w *watcher) takeSelf(ev notice) {
	if ev.dir != "" || ev.mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT) == 0 {
		return
	}
	if g, done, err := w.s.root.borrow(); err == nil {
		_ = w.s.root.verify(g) // tells everybody
		done()
	}
}

func (w *watcher) hold(p manifest.Path, d time.Duration) {
	if _, held := w.later[p]; !held {
		w.later[p] = time.Now().Add(d)
	}
}

func (w *watcher) nextLater() (at time.Time, ok bool) {
	for _, t := range w.later {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	return at, ok
}

func (w *watcher) flushLater(now time.Time) {
	var due []manifest.Path
	for p, t := range w.later {
		if !t.After(now) {
			due = append(due, p)
			delete(w.later, p)
		}
	}
	w.s.inbox.hint(due...)
}
