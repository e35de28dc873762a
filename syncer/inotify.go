package syncer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/manifest"
)

// Inotify is spoken to directly rather than through fsnotify, for two reasons.
// fsnotify has no public close-write event, and that is the very moment when a
// file can be looked at: without it a written file waits for a poll. And a
// watch belongs to an inode: after a directory was moved, only whoever keeps
// the descriptors himself can tell which path a watch stands for now.

const watchMask = unix.IN_CREATE | unix.IN_CLOSE_WRITE | unix.IN_MODIFY | unix.IN_ATTRIB |
	unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF |
	unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW | unix.IN_EXCL_UNLINK

// notice is one event of the kernel, with the directory as watched.
type notice struct {
	dir  manifest.Path
	name string // "" where it is about the directory itself
	mask uint32
}

// notifier holds the inotify descriptor and which directory each watch stands
// for. Safe for concurrent use; read is called by one goroutine.
type notifier struct {
	file *os.File
	raw  int

	mu     sync.Mutex
	closed bool   // raw may be somebody else's descriptor by now
	base   string // path of the root
	dirs   map[int32]manifest.Path
	wds    map[manifest.Path]int32
}

func newNotifier(base string) (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	return &notifier{
		file: os.NewFile(uintptr(fd), "inotify"), raw: fd, base: base,
		dirs: map[int32]manifest.Path{}, wds: map[manifest.Path]int32{},
	}, nil
}

// close ends a read that is under way.
func (n *notifier) close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	return n.file.Close()
}

// add watches a directory. A directory that is watched already under an older
// path is known by the new one from now on.
func (n *notifier) add(dir manifest.Path) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return os.ErrClosed
	}
	path := n.base
	if dir != "" {
		path += "/" + string(dir)
	}
	wd, err := unix.InotifyAddWatch(n.raw, path, watchMask)
	if err != nil {
		return err
	}
	w := int32(wd)
	if old, ok := n.dirs[w]; ok && old != dir {
		delete(n.wds, old)
	}
	if old, ok := n.wds[dir]; ok && old != w { // another directory stands there now
		delete(n.dirs, old)
		_, _ = unix.InotifyRmWatch(n.raw, uint32(old))
	}
	n.dirs[w], n.wds[dir] = dir, w
	return nil
}

// drop forgets the watches of a directory and of everything below it, because
// it was moved: whatever it is called now, it is not this. The path "" drops
// all.
func (n *notifier) drop(dir manifest.Path) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p, wd := range n.wds {
		if p == dir || p.Under(dir) {
			delete(n.wds, p)
			delete(n.dirs, wd)
			if !n.closed {
				_, _ = unix.InotifyRmWatch(n.raw, uint32(wd)) // gone already: fine
			}
		}
	}
}

func (n *notifier) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.dirs)
}

// errOverflow: the kernel's queue was full and events are lost.
var errOverflow = errors.New("inotify queue overflow")

// read waits for events and returns a batch of them.
func (n *notifier) read(buf []byte, out []notice) ([]notice, error) {
	k, err := n.file.Read(buf)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for b := buf[:k]; len(b) >= unix.SizeofInotifyEvent; {
		wd := int32(binary.NativeEndian.Uint32(b[0:4]))
		mask := binary.NativeEndian.Uint32(b[4:8])
		size := int(binary.NativeEndian.Uint32(b[12:16]))
		name := b[unix.SizeofInotifyEvent:][:size]
		b = b[unix.SizeofInotifyEvent+size:]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			return out, errOverflow
		}
		dir, known := n.dirs[wd]
		if mask&unix.IN_IGNORED != 0 {
			if known {
				delete(n.dirs, wd)
				if n.wds[dir] == wd {
					delete(n.wds, dir)
				}
			}
			continue
		}
		if known {
			out = append(out, notice{dir: dir, name: strings.TrimRight(string(name), "\x00"), mask: mask})
		}
	}
	return out, nil
}
