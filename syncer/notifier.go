package syncer

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/fsnotify/fsnotify"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// noticesMost bounds a batch: what has come together is hinted at together.
const noticesMost = 1024

// notice is one file event below a root.
type notice struct {
	path manifest.Path // "" is the root itself
	op   fsnotify.Op
}

// notifier watches the directories of one root through fsnotify, one by one:
// its recursion is not public. A watch belongs to an inode, and fsnotify to
// the path under which it was set; so the watches of a directory that was
// moved are dropped before it is watched under its new name. Safe for
// concurrent use; read is called by one goroutine.
//
// To set a watch is a call into the mount, which may hang, and with it
// everything else in fsnotify, which holds a lock meanwhile. Such a notifier is
// given up: whoever uses it is told so at once, and its end is nobody's to wait for.
type notifier struct {
	base   string    // path of the root
	gate   *vfs.Gate // nil: it does not hang
	watch  *fsnotify.Watcher
	count  atomic.Int64 // of dirs
	hangs  atomic.Bool  // a call into fsnotify was left behind
	ended  atomic.Bool
	closed chan struct{} // by close

	order sync.Mutex                 // of add and drop; held over their calls, which are bounded by the gate
	dirs  map[manifest.Path]struct{} // that are watched
}

func newNotifier(base string, gate *vfs.Gate) (*notifier, error) {
	w, err := fsnotify.NewBufferedWatcher(noticesMost)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	return &notifier{base: base, gate: gate, watch: w, dirs: map[manifest.Path]struct{}{}, closed: make(chan struct{})}, nil
}

// close ends a read that is under way.
func (n *notifier) close() error {
	if n.ended.Swap(true) {
		return nil
	}
	close(n.closed)
	if !n.hangs.Load() {
		// The kernel lets go of what was watched, which takes its time on a busy machine.
		if err := n.gate.Do("end watching", n.watch.Close); !errors.Is(err, vfs.ErrHung) {
			return err
		}
	}
	go func() { _ = n.watch.Close() }() // ends when the mount answers
	return nil
}

func (n *notifier) abs(p manifest.Path) string {
	if p == "" {
		return n.base
	}
	return n.base + "/" + string(p)
}

// add watches a directory; again is well.
func (n *notifier) add(dir manifest.Path) error {
	n.order.Lock()
	defer n.order.Unlock()
	if n.hangs.Load() {
		return nil // the root is lost anyhow
	}
	if _, known := n.dirs[dir]; known {
		return nil
	}
	if err := n.call("watch", func() error { return n.watch.Add(n.abs(dir)) }); err != nil {
		return err
	}
	n.dirs[dir] = struct{}{}
	n.count.Store(int64(len(n.dirs)))
	return nil
}

// drop forgets the watches of a directory and of everything below it, because
// it was moved or removed: whatever stands there now is not it. It tells
// whether dir was watched.
func (n *notifier) drop(dir manifest.Path) bool {
	n.order.Lock()
	defer n.order.Unlock()
	if _, known := n.dirs[dir]; !known || n.hangs.Load() {
		return false
	}
	var gone []string
	for p := range n.dirs {
		if p == dir || p.Under(dir) {
			delete(n.dirs, p)
			gone = append(gone, n.abs(p))
		}
	}
	n.count.Store(int64(len(n.dirs)))
	_ = n.call("unwatch", func() error {
		for _, path := range gone {
			_ = n.watch.Remove(path) // gone already: fine
		}
		return nil
	})
	return true
}

// watches tells whether a directory is surely watched. It waits for nothing.
func (n *notifier) watches(dir manifest.Path) bool {
	if !n.order.TryLock() {
		return false
	}
	defer n.order.Unlock()
	_, known := n.dirs[dir]
	return known
}

// call calls into fsnotify, which may wait for the mount.
func (n *notifier) call(op string, fn func() error) error {
	err := n.gate.Do(op, fn)
	if errors.Is(err, vfs.ErrHung) {
		n.hangs.Store(true)
	}
	return err
}

// isDir tells whether a directory stands at p now.
func (n *notifier) isDir(p manifest.Path) bool {
	st, err := vfs.Pass(n.gate, "lstat", func() (os.FileInfo, error) { return os.Lstat(n.abs(p)) }, nil)
	return err == nil && st.IsDir()
}

func (n *notifier) len() int { return int(n.count.Load()) }

// errOverflow: the kernel's queue was full and events are lost.
var errOverflow = errors.New("inotify queue overflow")

// read waits for events and returns what has come together. os.ErrClosed is
// the end.
func (n *notifier) read() (batch []notice, err error) {
	select {
	case <-n.closed:
		return nil, os.ErrClosed
	case ev, ok := <-n.watch.Events:
		if !ok {
			return nil, os.ErrClosed
		}
		batch = n.append(batch, ev)
	case err, ok := <-n.watch.Errors:
		switch {
		case !ok:
			return nil, os.ErrClosed
		case errors.Is(err, fsnotify.ErrEventOverflow):
			return nil, errOverflow
		}
		return nil, nil // of one watch: the next scan sets it anew
	}
	for len(batch) < noticesMost {
		select {
		case ev, ok := <-n.watch.Events:
			if !ok {
				return batch, os.ErrClosed
			}
			batch = n.append(batch, ev)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// append adds an event, unless its name is none that could be replicated.
func (n *notifier) append(batch []notice, ev fsnotify.Event) []notice {
	if ev.Name == n.base {
		return append(batch, notice{op: ev.Op})
	}
	p, err := manifest.ParsePath(strings.TrimPrefix(ev.Name, n.base+"/"))
	if err != nil {
		return batch
	}
	return append(batch, notice{path: p, op: ev.Op})
}
