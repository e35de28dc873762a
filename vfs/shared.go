package vfs

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
)

// Refresh implements Shared: NFS asks the server about a directory that is
// opened for reading (close-to-open), and forgets what it believed of its names
// if it has changed.
func (r *Root) Refresh(p manifest.Path) error {
	return r.at("refresh", p, func(int) error { return nil })
}

// OpenFresh implements Shared: what is cached of the file's content is dropped,
// for two changes within one tick of the server's clock look alike to NFS.
func (r *Root) OpenFresh(p manifest.Path) (File, error) {
	f, err := r.open(p)
	if err != nil {
		return nil, err
	}
	// Advice: no filesystem has to take it.
	_ = control(f.File, func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) })
	return f, nil
}

// ReadNote implements Shared.
func (r *Root) ReadNote(name string) ([]byte, error) {
	if err := stagedName(name); err != nil {
		return nil, pathError("read", name, err)
	}
	return r.readInside(name)
}

// WriteNote implements Shared.
func (r *Root) WriteNote(name string, content []byte) error {
	if err := stagedName(name); err != nil {
		return pathError("write", name, err)
	}
	return r.writeInside(name, content, false)
}

// ListNotes implements Shared.
func (r *Root) ListNotes(prefix string) (list []string, err error) {
	err = r.inMarkerDir("list", prefix, func(dirfd int) error {
		all, err := names(dirfd)
		for _, name := range all {
			// What is being written has a name of its own, with a dot in it.
			if strings.HasPrefix(name, prefix) && !strings.Contains(name, ".") {
				list = append(list, name)
			}
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, err
}

// Nudge implements Shared. Opened for writing and closed again is an event to
// who waits for a close, the same mode once more is one to who waits for
// attributes; mtime and content stay.
func (r *Root) Nudge(p manifest.Path) error {
	return r.in("nudge", p, func(dirfd int, name string) error {
		st, err := lstatat(dirfd, name)
		if err != nil {
			return err
		}
		if st.Kind != manifest.File {
			return ErrNotRegular
		}
		fd, err := openat(dirfd, name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Fchmod(fd, st.Mode)
	})
}

// RemoveNote implements Shared.
func (r *Root) RemoveNote(name string) error {
	if err := stagedName(name); err != nil {
		return pathError("remove", name, err)
	}
	err := r.inMarkerDir("remove", name, func(dirfd int) error { return unix.Unlinkat(dirfd, name, 0) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
