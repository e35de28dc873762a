package vfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/manifest"
)

// ErrLocked: somebody else works in the tree.
var ErrLocked = errors.New("somebody else works in this directory at this moment")

// Lock makes sure that nobody else who asks works in the tree, in whatever
// process of this machine: ErrLocked. It lasts until Close. It stands in a file
// in .gatesync, so that a process that dies takes its lock with it.
func (r *Root) Lock() error {
	err := r.root.do(func(fd int) error { return unix.Mkdirat(fd, manifest.MarkerDir, 0o755) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return pathError("mkdir", manifest.MarkerDir, err)
	}
	return r.inMarkerDir("lock", "lock", func(dirfd int) error {
		fd, err := openat(dirfd, "lock", unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "lock")
		for {
			err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return ErrLocked
			}
			return fmt.Errorf("lock the tree: %w", err)
		}
		r.lock = f
		return nil
	})
}
