package blob

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/vfs"
)

// disk is what the store asks of the system where it can fail. Tests replace
// single functions.
type disk struct {
	free   func(dir string) (int64, error)
	write  func(f *os.File, b []byte, off int64) (int, error)
	sync   func(f *os.File) error // content and size
	syncfs func(f *os.File) error // everything on f's filesystem
	// syncDir flushes a directory's names.
	syncDir func(path string) error
	rename  func(from, to string) error
	remove  func(path string) error
}

func realDisk() disk {
	return disk{
		free: func(dir string) (int64, error) {
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil {
				return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
			}
			return int64(st.Bavail) * st.Bsize, nil
		},
		write:  func(f *os.File, b []byte, off int64) (int, error) { return f.WriteAt(b, off) },
		sync:   func(f *os.File) error { return control(f, "fdatasync", unix.Fdatasync) },
		syncfs: func(f *os.File) error { return control(f, "syncfs", unix.Syncfs) },

		syncDir: vfs.SyncDir, rename: os.Rename, remove: os.Remove,
	}
}

// control runs fn with f's descriptor, again when a signal came.
func control(f *os.File, op string, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) {
		for err = fn(int(fd)); errors.Is(err, unix.EINTR); err = fn(int(fd)) {
		}
	}); cerr != nil {
		return cerr
	}
	if err != nil {
		return &os.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}
