package vfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
)

// Options of OpenRoot.
type Options struct {
	// Create makes the root where it is missing.
	Create bool
	// Staging is a directory on the root's filesystem; "" lets OpenRoot
	// choose: beside the root where it can, else inside.
	Staging string
	// Node gives a directory that OpenRoot chooses a part of this node's own:
	// others may have the root too, and leftovers are each node's to judge.
	Node string
}

// Root is a tree's root that is held open, with its staging directory. It
// implements FS. Close it.
type Root struct {
	path    string // as people call it: absolute, symlinks in it not resolved
	root    dir
	stage   dir
	node    string                                               // whose part of the staging directory stage is; "": it is all of it
	beneath func(dirfd int, path string, flags int) (int, error) // beneath or walkBeneath
	leases  *keeper
	caps    Capabilities
	lock    *os.File // see Lock; nil: not taken
}

var _ FS = (*Root)(nil)

// OpenRoot opens the directory at path. Symlinks in path itself are followed:
// it is the operator's word.
func OpenRoot(path string, o Options) (*Root, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, pathError("open root", path, err)
	}
	if o.Create {
		if err := os.MkdirAll(abs, 0o755); err != nil {
			return nil, fmt.Errorf("make the root: %w", err)
		}
	}
	r := &Root{path: abs, beneath: beneath}
	if o.Staging == "" {
		r.node = o.Node
	}
	if r.root, err = openDir(abs); err != nil {
		return nil, err
	}
	if err := r.root.do(func(fd int) error { return r.probeOpenat2(fd) }); err != nil {
		_ = r.root.close()
		return nil, pathError("open root", abs, err)
	}
	if r.stage, err = chooseStaging(r.root, abs, o); err != nil {
		_ = r.root.close()
		return nil, err
	}
	r.leases = newKeeper()
	if r.caps, err = r.probe(); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("try out the staging directory %s: %w", r.stage.file.Name(), err)
	}
	return r, nil
}

// probeOpenat2 falls back to the walk where openat2 is missing or forbidden.
func (r *Root) probeOpenat2(fd int) error {
	got, err := beneath(fd, ".", unix.O_PATH|unix.O_DIRECTORY)
	if unsupported(err) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		r.beneath = walkBeneath
		return nil
	}
	if err != nil {
		return err
	}
	return unix.Close(got)
}

// Path implements FS.
func (r *Root) Path() string { return r.path }

// Staging is the staging directory's absolute path, for people.
func (r *Root) Staging() string { return r.stage.file.Name() }

// Capabilities implements FS.
func (r *Root) Capabilities() Capabilities { return r.caps }

// Leases tells whether read leases work on this root.
func (r *Root) Leases() bool { return r.caps.Leases }

// Close releases all leases and descriptors. It does not wait for calls that
// hang in the filesystem; those end with the filesystem's answer, later ones
// with fs.ErrClosed.
func (r *Root) Close() error {
	r.leases.close()
	err := errors.Join(r.stage.close(), r.root.close())
	if r.lock != nil {
		err = errors.Join(err, r.lock.Close())
	}
	return err
}

// Check implements FS.
func (r *Root) Check() error {
	opened, err := r.Lstat("")
	if err != nil {
		return fmt.Errorf("%w (%w)", ErrRootMissing, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(r.path, &st); err != nil {
		return fmt.Errorf("%w (%w)", ErrRootMissing, pathError("stat", r.path, err))
	}
	if !statOf(&st).SameFile(opened) {
		return fmt.Errorf("%s: %w", r.path, ErrRootReplaced)
	}
	if r.unstaged() {
		return fmt.Errorf("%s: %w: its staging directory %s was removed", r.path, ErrRootReplaced, r.Staging())
	}
	return nil
}

// unstaged tells whether somebody has removed the staging directory: nothing can
// be made in it any more, and opening the root anew makes another one.
func (r *Root) unstaged() (gone bool) {
	_ = r.stage.do(func(fd int) error {
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		gone = err == nil && st.Nlink == 0 || errors.Is(err, unix.ESTALE)
		return nil
	})
	return gone
}

// Free implements FS.
func (r *Root) Free() (free int64, err error) {
	err = r.root.do(func(fd int) error {
		var st unix.Statfs_t
		if err := unix.Fstatfs(fd, &st); err != nil {
			return err
		}
		free = int64(st.Bavail) * st.Bsize
		return nil
	})
	return free, pathError("statfs", r.path, err)
}

// Lstat implements Looker.
func (r *Root) Lstat(p manifest.Path) (st Stat, err error) {
	if p == "" {
		err = r.root.do(func(fd int) (err error) { st, err = fstat(fd); return err })
		return st, pathError("lstat", "", err)
	}
	err = r.in("lstat", p, func(dirfd int, name string) (err error) {
		st, err = lstatat(dirfd, name)
		return err
	})
	return st, err
}

// ReadDir implements Looker.
func (r *Root) ReadDir(p manifest.Path) (list []Entry, err error) {
	err = r.at("readdir", p, func(fd int) error {
		all, err := names(fd)
		if err != nil {
			return err
		}
		list = make([]Entry, 0, len(all))
		for _, name := range all {
			if p == "" && name == manifest.MarkerDir {
				continue
			}
			st, err := lstatat(fd, name)
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return err
			}
			list = append(list, Entry{name, st})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Readlink implements Looker.
func (r *Root) Readlink(p manifest.Path) (target string, err error) {
	err = r.in("readlink", p, func(dirfd int, name string) (err error) {
		target, err = readlinkat(dirfd, name)
		return err
	})
	return target, err
}

// Open implements Looker.
func (r *Root) Open(p manifest.Path) (File, error) {
	f, err := r.open(p)
	if err != nil {
		return nil, err // no *file in it: a nil one would be no nil File
	}
	return f, nil
}

func (r *Root) open(p manifest.Path) (f *file, err error) {
	err = r.in("open", p, func(dirfd int, name string) (err error) {
		f, err = r.openFile(dirfd, name)
		return err
	})
	return f, err
}
