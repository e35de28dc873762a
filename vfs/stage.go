package vfs

import (
	"errors"
	"io/fs"
	"os"

	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
)

// staged runs fn with the staging directory, after a look at the name.
func (r *Root) staged(op, name string, fn func(fd int) error) error {
	if err := stagedName(name); err != nil {
		return pathError(op, name, err)
	}
	return pathError(op, name, r.stage.do(fn))
}

// Create implements Stager.
func (r *Root) Create(name string, mode uint32) (WFile, error) {
	var w *wfile
	err := r.staged("create", name, func(dirfd int) error {
		fd, err := openat(dirfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		if err := unix.Fchmod(fd, mode&0o7777); err != nil { // whatever the umask says
			_ = unix.Close(fd)
			_ = unix.Unlinkat(dirfd, name, 0)
			return err
		}
		w = &wfile{File: os.NewFile(uintptr(fd), name), stage: r.stage, name: name}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// StageLink implements Stager.
func (r *Root) StageLink(name, target string) error {
	return r.staged("symlink", name, func(dirfd int) error { return unix.Symlinkat(target, dirfd, name) })
}

// StatStaged implements Stager.
func (r *Root) StatStaged(name string) (st Stat, err error) {
	err = r.staged("lstat", name, func(dirfd int) (err error) { st, err = lstatat(dirfd, name); return err })
	return st, err
}

// OpenStaged implements Stager.
func (r *Root) OpenStaged(name string) (File, error) {
	var f *file
	err := r.staged("open", name, func(dirfd int) (err error) {
		if f, err = r.openFile(dirfd, name); !errors.Is(err, fs.ErrPermission) {
			return err
		}
		st, serr := lstatat(dirfd, name)
		if serr != nil || st.Mode&0o400 != 0 || chmodat(dirfd, name, st, st.Mode|0o400) != nil {
			return err
		}
		f, err = r.openFile(dirfd, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// ReadlinkStaged implements Stager.
func (r *Root) ReadlinkStaged(name string) (target string, err error) {
	err = r.staged("readlink", name, func(dirfd int) (err error) { target, err = readlinkat(dirfd, name); return err })
	return target, err
}

// RemoveStaged implements Stager.
func (r *Root) RemoveStaged(name string) error {
	return r.staged("remove", name, func(dirfd int) error {
		st, err := lstatat(dirfd, name)
		if err != nil {
			return err
		}
		if st.Kind == manifest.Dir {
			return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
		}
		return unix.Unlinkat(dirfd, name, 0)
	})
}

// ListStaged implements Stager.
func (r *Root) ListStaged() (list []string, err error) {
	err = r.stage.do(func(dirfd int) error {
		fd, err := openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0) // with a read position of its own
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		list, err = names(fd)
		return err
	})
	return list, pathError("readdir", r.stage.file.Name(), err)
}

// SyncStaging implements Stager.
func (r *Root) SyncStaging() error {
	return pathError("sync", r.stage.file.Name(), r.stage.do(fsync))
}
