package vfs

import (
	"errors"
	"os"
	"sync"

	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
)

// file implements File.
type file struct {
	*os.File
	root *Root

	mu    sync.Mutex
	lease *lease // the last one taken, perhaps released
}

// openFile opens a regular file. It looks before it opens: to open a FIFO
// wakes its writer, and to open a device may do anything.
func (r *Root) openFile(dirfd int, name string) (*file, error) {
	st, err := lstatat(dirfd, name)
	if err != nil {
		return nil, err
	}
	if st.Kind != manifest.File {
		return nil, ErrNotRegular
	}
	fd, err := openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO):
		return nil, ErrNotRegular // became a symlink or a socket meanwhile
	case errors.Is(err, unix.EAGAIN):
		return nil, ErrWriter // under somebody's write lease
	case err != nil:
		return nil, err
	}
	if st, err = fstat(fd); err == nil && st.Kind != manifest.File {
		err = ErrNotRegular
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &file{File: os.NewFile(uintptr(fd), name), root: r}, nil
}

// Stat implements File.
func (f *file) Stat() (Stat, error) { return statFile(f.File) }

// Lease implements File.
func (f *file) Lease() (Lease, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lease != nil && f.root.leases.held(f.lease) {
		return nil, pathError("lease", f.Name(), ErrLeased)
	}
	if !f.root.caps.Leases { // a refusal might be no writer, a lease no lease (see leasable)
		return nil, pathError("lease", f.Name(), ErrNoLease)
	}
	l, err := f.root.leases.take(f.File)
	if err != nil {
		return nil, pathError("lease", f.Name(), err)
	}
	f.lease = l
	return l, nil
}

// Close implements File.
func (f *file) Close() error {
	f.mu.Lock()
	if f.lease != nil {
		f.lease.Release()
	}
	f.mu.Unlock()
	return f.File.Close()
}

// wfile implements WFile.
type wfile struct {
	*os.File
	stage dir
	name  string
}

// Chmod implements WFile. It hides os.File's, which speaks another dialect of modes.
func (w *wfile) Chmod(mode uint32) error {
	return pathError("chmod", w.name, control(w.File, func(fd int) error { return unix.Fchmod(fd, mode&0o7777) }))
}

// Chtimes implements WFile.
func (w *wfile) Chtimes(mtime int64) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime)}
	return pathError("chtimes", w.name, w.stage.do(func(fd int) error {
		return unix.UtimesNanoAt(fd, w.name, times, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

// Stat implements WFile.
func (w *wfile) Stat() (Stat, error) { return statFile(w.File) }

func statFile(f *os.File) (st Stat, err error) {
	err = control(f, func(fd int) (err error) { st, err = fstat(fd); return err })
	return st, pathError("stat", f.Name(), err)
}

// control lends out a file's descriptor; os.ErrClosed once it is closed.
func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = fn(int(fd)) }); cerr != nil {
		return os.ErrClosed
	}
	return err
}
