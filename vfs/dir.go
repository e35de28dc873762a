package vfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
)

// dir is a directory that is held open. Its descriptor is only lent out by
// do, so that it is not closed (and its number not given to another file)
// under a call that uses it; close does not wait for such calls.
type dir struct {
	file *os.File
	raw  syscall.RawConn
}

func openDir(path string) (dir, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return dir{}, pathError("open", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return dir{}, pathError("open", path, err)
	}
	return dir{f, raw}, nil
}

// do lends the descriptor to fn; fs.ErrClosed after close.
func (d dir) do(fn func(fd int) error) error {
	var err error
	if cerr := d.raw.Control(func(fd uintptr) { err = fn(int(fd)) }); cerr != nil {
		return fs.ErrClosed
	}
	return err
}

func (d dir) close() error { return d.file.Close() }

// openat opens relative to dirfd without becoming a controlling terminal, a
// leak to children or a victim of a signal (leases make for many).
func openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_CLOEXEC|unix.O_NOCTTY, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// beneath opens what path names below dirfd, following no symlink anywhere.
func beneath(dirfd int, path string, flags int) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dirfd, path, &how)
		// EAGAIN: something on the way was renamed under the walk.
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) && try < 100 {
			continue
		}
		return fd, err
	}
}

// walkBeneath is beneath for kernels and sandboxes without openat2.
func walkBeneath(dirfd int, path string, flags int) (int, error) {
	at := dirfd
	for {
		name, rest, more := cut(path)
		f := unix.O_PATH | unix.O_DIRECTORY
		if !more {
			f = flags
		}
		fd, err := openat(at, name, f|unix.O_NOFOLLOW, 0)
		if at != dirfd {
			_ = unix.Close(at)
		}
		if err != nil || !more {
			return fd, err
		}
		at, path = fd, rest
	}
}

func cut(path string) (name, rest string, more bool) {
	for i := range len(path) {
		if path[i] == '/' {
			return path[:i], path[i+1:], true
		}
	}
	return path, "", false
}

// in runs fn with the descriptor of the directory that p stands in, and p's
// last element. op names the operation in errors.
func (r *Root) in(op string, p manifest.Path, fn func(dirfd int, name string) error) error {
	if _, err := manifest.ParsePath(string(p)); err != nil {
		return pathError(op, string(p), err)
	}
	return pathError(op, string(p), r.root.do(func(fd int) error {
		parent := p.Dir()
		if parent == "" {
			return fn(fd, string(p))
		}
		dirfd, err := r.beneath(fd, string(parent), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return parentError(err)
		}
		defer unix.Close(dirfd)
		return fn(dirfd, p.Base())
	}))
}

// at runs fn with a readable descriptor of the directory p, "" being the root.
// The descriptor is fn's alone: it has its own read position.
func (r *Root) at(op string, p manifest.Path, fn func(fd int) error) error {
	open := func(dirfd int, name string) error {
		fd, err := openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return ErrNotDir
		}
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return fn(fd)
	}
	if p == "" {
		return pathError(op, "", r.root.do(func(fd int) error { return open(fd, ".") }))
	}
	return r.in(op, p, open)
}

// lstatat is fstatat without following, unharmed by signals.
func lstatat(dirfd int, name string) (Stat, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return Stat{}, err
		}
		return statOf(&st), nil
	}
}

func fstat(fd int) (Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Stat{}, err
	}
	return statOf(&st), nil
}

// names lists an open directory, sorted.
func names(fd int) ([]string, error) {
	var list []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			slices.Sort(list)
			return list, nil
		}
		_, _, list = unix.ParseDirent(buf[:n], -1, list)
	}
}

func readlinkat(dirfd int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dirfd, name, buf)
		switch {
		case errors.Is(err, unix.EINVAL):
			return "", ErrNotSymlink
		case err != nil:
			return "", err
		case n < size:
			return string(buf[:n]), nil
		}
	}
}

// fsync flushes fd, unharmed by signals.
func fsync(fd int) error {
	for {
		if err := unix.Fsync(fd); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// stagedName refuses what is no single name.
func stagedName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > manifest.MaxName ||
		filepath.Base(name) != name || slices.Contains([]byte(name), 0) {
		return ErrName
	}
	return nil
}
