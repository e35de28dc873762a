package vfs

import (
	"errors"
	"io"
	"os"

	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
)

const (
	markerName = "marker.json"
	maxMarker  = 64 << 10
)

// inMarkerDir runs fn with the root's .gatesync directory.
func (r *Root) inMarkerDir(op, file string, fn func(dirfd int) error) error {
	return pathError(op, manifest.MarkerDir+"/"+file, r.root.do(func(root int) error {
		fd, err := openat(root, manifest.MarkerDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return parentError(err)
		}
		defer unix.Close(fd)
		return fn(fd)
	}))
}

// ReadMarker implements Marker.
func (r *Root) ReadMarker() (content []byte, err error) {
	return r.readInside(markerName)
}

// readInside reads a file in the .gatesync directory.
func (r *Root) readInside(file string) (content []byte, err error) {
	err = r.inMarkerDir("read", file, func(dirfd int) error {
		f, err := r.openFile(dirfd, file)
		if err != nil {
			return err
		}
		defer f.Close()
		content, err = io.ReadAll(io.LimitReader(f, maxMarker))
		return err
	})
	return content, err
}

// WriteMarker implements Marker.
func (r *Root) WriteMarker(content []byte) error {
	if err := r.writeInside(markerName, content, true); err != nil {
		return err
	}
	return r.SyncDir("") // the directory may be new
}

// Place tells a directory from a copy of it. What is not known is 0.
type Place struct {
	// Ino is its inode. Some file systems number anew at each mount.
	Ino uint64 `json:"ino,omitempty"`
	// Born is when it was made, in Unix nanoseconds: nobody can set that.
	Born int64 `json:"born,omitempty"`
}

// Copied tells that q is surely another directory than p.
func (p Place) Copied(q Place) bool {
	if p.Born != 0 && q.Born != 0 {
		return p.Born != q.Born
	}
	return p.Ino != 0 && q.Ino != 0 && p.Ino != q.Ino
}

// MarkerPlace implements Marker.
func (r *Root) MarkerPlace() (at Place, err error) {
	if err := r.makeMarkerDir(); err != nil {
		return at, err
	}
	err = r.inMarkerDir("stat", "", func(dirfd int) error {
		var st unix.Statx_t
		if err := unix.Statx(dirfd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
			return err
		}
		var fs unix.Statfs_t
		if err := unix.Fstatfs(dirfd, &fs); err != nil {
			return err
		}
		if st.Mask&unix.STATX_BTIME != 0 {
			at.Born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
		}
		if fs.Type != unix.FUSE_SUPER_MAGIC && fs.Type != unix.OVERLAYFS_SUPER_MAGIC {
			at.Ino = st.Ino
		}
		return nil
	})
	return at, err
}

func (r *Root) makeMarkerDir() error {
	err := r.root.do(func(fd int) error { return unix.Mkdirat(fd, manifest.MarkerDir, 0o755) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return pathError("mkdir", manifest.MarkerDir, err)
	}
	return nil
}

// writeInside replaces a file in the .gatesync directory, which it makes.
func (r *Root) writeInside(file string, content []byte, flush bool) error {
	if err := r.makeMarkerDir(); err != nil {
		return err
	}
	return r.inMarkerDir("write", file, func(dirfd int) error {
		tmp := file + "." + probeName() // several nodes may share the tree
		fd, err := openat(dirfd, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), tmp)
		_, err = f.Write(content)
		if flush {
			err = errors.Join(err, f.Sync())
		}
		if err = errors.Join(err, f.Close()); err == nil {
			err = unix.Renameat(dirfd, tmp, dirfd, file)
		}
		if err != nil {
			_ = unix.Unlinkat(dirfd, tmp, 0)
			return err
		}
		if !flush {
			return nil
		}
		return fsync(dirfd)
	})
}
