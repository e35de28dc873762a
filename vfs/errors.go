package vfs

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

var (
	// ErrRootMissing: the root's path cannot be looked at (any more).
	ErrRootMissing = errors.New("the tree's root is missing; mount it, or make it anew, and it is taken up again")
	// ErrRootReplaced: another directory stands under the root's path than the
	// one that was opened.
	ErrRootReplaced = errors.New("another directory stands where the tree's root was (unmounted, or replaced); put the old one back, or restart to take up the new one")
	// ErrNotRegular: no regular file stands there.
	ErrNotRegular = errors.New("not a regular file")
	// ErrNotDir: no directory stands there.
	ErrNotDir = errors.New("not a directory")
	// ErrIsDir: a directory stands there.
	ErrIsDir = errors.New("is a directory")
	// ErrNotSymlink: no symbolic link stands there.
	ErrNotSymlink = errors.New("not a symbolic link")
	// ErrNotEmpty: the directory still holds something.
	ErrNotEmpty = errors.New("directory not empty")
	// ErrChanged: another inode stands there than the expected one.
	ErrChanged = errors.New("something else stands here than was expected")
	// ErrNoExchange: the filesystem cannot swap two names (NFS).
	ErrNoExchange = errors.New("the filesystem cannot exchange two names")
	// ErrWriter: somebody has the file open for writing.
	ErrWriter = errors.New("somebody has the file open for writing")
	// ErrNoLease: leases do not work for this file (NFS, or it is not ours).
	ErrNoLease = errors.New("leases are not supported for this file")
	// ErrLeased: this File already holds a lease.
	ErrLeased = errors.New("the file is leased already")
	// ErrName: not a name that can be staged.
	ErrName = errors.New("not a single file name")
)

// pathError is the one place where errors get their operation and path.
func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	if path == "" {
		path = "."
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// parentError reports a failure to open the directory that a path stands in. A
// parent that is a file or a symlink means that the path does not exist.
func parentError(err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%w: what it stands in is no directory", fs.ErrNotExist)
	}
	return err
}

// unsupported tells errors that mean "this kernel or filesystem cannot" from
// those that mean "not now". EPERM and EACCES are how sandboxes say it.
func unsupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP)
}
