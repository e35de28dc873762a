package vfs

import (
	"errors"
	"strconv"

	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
)

// chmodat sets the mode of a file or directory through a descriptor that was
// seen to be the expected inode, so that no other is hit, whatever is renamed
// meanwhile. The descriptor is O_PATH: a file that we may not read can still
// be ours.
func chmodat(dirfd int, name string, expect Stat, mode uint32) error {
	fd, err := openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	st, err := fstat(fd)
	switch {
	case err != nil:
		return err
	case !st.SameFile(expect) || st.Kind != manifest.File && st.Kind != manifest.Dir:
		return ErrChanged
	case st.Mode == mode&0o7777:
		return nil
	}
	err = unix.Fchmodat(fd, "", mode&0o7777, unix.AT_EMPTY_PATH)
	if unsupported(err) || errors.Is(err, unix.EPERM) {
		// fchmodat2 came with Linux 6.6, and some sandboxes forbid it.
		return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode&0o7777)
	}
	return err
}
