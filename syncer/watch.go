package syncer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
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

	overflows atomic.Uint64 // how often events were lost
}

func newWatcher(s *Syncer) *watcher {
	return &watcher{s: s, changed: make(chan struct{}, 1)}
}

// reset starts anew for a root that was opened: nothing is watched until the
// next scan. What happened before the scan is seen by it.
func (w *watcher) reset(root vfs.FS) {
	n, err := newNotifier(root.Path(), vfs.GateOf(root))
	w.mu.Lock()
	old, said := w.n, w.limited
	w.n, w.limited = n, ""
	switch {
	case w.ended && err == nil:
		w.n, old = nil, n
	case err != nil:
		w.n = nil
		w.limited = fmt.Sprintf("%v: raise fs.inotify.max_user_instances; until then changes are found by scans", err)
		if said != w.limited {
			w.s.log.Warn("no file events", "err", err)
		}
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
// a limit may have been raised. Where there are no events at all it asks for them.
func (w *watcher) scanBegins(root vfs.FS) {
	w.mu.Lock()
	w.refused = ""
	none := w.n == nil && !w.ended
	w.mu.Unlock()
	if none {
		w.reset(root)
	}
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

// run reads events until ctx ends. One goroutine of Run.
func (w *watcher) run(ctx context.Context) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { // ends the read
		defer close(closed)
		_ = w.close()
	})
	w.readAll(ctx)
	if !stop() {
		<-closed
	}
	_ = w.close()
}

// readAll reads from whichever notifier is the current one.
func (w *watcher) readAll(ctx context.Context) {
	for ctx.Err() == nil {
		n := w.current()
		if n == nil {
			select {
			case <-ctx.Done():
			case <-w.changed:
			}
			continue
		}
		batch, err := n.read()
		w.take(n, batch)
		switch {
		case err == nil:
		case errors.Is(err, errOverflow):
			w.overflows.Add(1)
			w.s.log.Warn("more file events came than the kernel keeps: the tree is scanned instead (fs.inotify.max_queued_events)")
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

// take turns a batch of events into hints and scans. A file that is still
// being written is found busy and looked at again soon: there is no event for
// its being closed.
func (w *watcher) take(n *notifier, batch []notice) {
	now := map[manifest.Path]struct{}{}
	var dirs []manifest.Path
	for _, ev := range batch {
		if ev.path == "" {
			w.takeRoot(ev)
			continue
		}
		isDir := false
		switch {
		case ev.op.Has(fsnotify.Remove) || ev.op.Has(fsnotify.Rename):
			isDir = n.drop(ev.path)
		case ev.op.Has(fsnotify.Create):
			if isDir = n.isDir(ev.path); isDir {
				n.drop(ev.path) // of another directory that stood there before
			}
		}
		if w.s.cfg.Ignore.Match(ev.path, isDir) {
			continue
		}
		if isDir { // everything that stands there now, or that the ancestor knows
			w.s.scanner.request(ev.path)
			dirs = append(dirs, ev.path)
		}
		now[ev.path] = struct{}{}
	}
	if len(now) > 0 {
		w.s.inbox.witness(slices.Collect(maps.Keys(now)), dirs)
	}
}

// takeRoot takes an event about the root itself. Of the other directories
// their parents tell.
func (w *watcher) takeRoot(ev notice) {
	if !ev.op.Has(fsnotify.Remove) && !ev.op.Has(fsnotify.Rename) {
		return
	}
	if g, done, err := w.s.root.borrow(); err == nil {
		_ = w.s.root.verify(g) // tells everybody
		done()
	}
}
