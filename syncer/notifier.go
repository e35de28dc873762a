package syncer

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/fsnotify/fsnotify"

	"github.com/gatesync/gatesync/manifest"
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
type notifier struct {
	base  string // path of the root
	watch *fsnotify.Watcher

	mu   sync.Mutex
	dirs map[manifest.Path]struct{} // that are watched
}

func newNotifier(base string) (*notifier, error) {
	w, err := fsnotify.NewBufferedWatcher(noticesMost)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	return &notifier{base: base, watch: w, dirs: map[manifest.Path]struct{}{}}, nil
}

// close ends a read that is under way.
func (n *notifier) close() error { return n.watch.Close() }

func (n *notifier) abs(p manifest.Path) string {
	if p == "" {
		return n.base
	}
	return n.base + "/" + string(p)
}

// add watches a directory; again is well.
func (n *notifier) add(dir manifest.Path) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.dirs[dir]; known {
		return nil
	}
	if err := n.watch.Add(n.abs(dir)); err != nil {
		return err
	}
	n.dirs[dir] = struct{}{}
	return nil
}

// drop forgets the watches of a directory and of everything below it, because
// it was moved or removed: whatever stands there now is not it. It tells
// whether dir was watched.
func (n *notifier) drop(dir manifest.Path) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.dirs[dir]; !known {
		return false
	}
	for p := range n.dirs {
		if p == dir || p.Under(dir) {
			delete(n.dirs, p)
			_ = n.watch.Remove(n.abs(p)) // gone already: fine
		}
	}
	return true
}

// watches tells whether a directory is watched.
func (n *notifier) watches(dir manifest.Path) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, known := n.dirs[dir]
	return known
}

// isDir tells whether a directory stands at p now.
func (n *notifier) isDir(p manifest.Path) bool {
	st, err := os.Lstat(n.abs(p))
	return err == nil && st.IsDir()
}

func (n *notifier) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.dirs)
}

// errOverflow: the kernel's queue was full and events are lost.
var errOverflow = errors.New("inotify queue overflow")

// read waits for events and returns what has come together. os.ErrClosed is
// the end.
func (n *notifier) read() (batch []notice, err error) {
	select {
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
