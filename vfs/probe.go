package vfs

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
)

// chooseStaging opens the staging directory: the given one, or the first that
// works.
func chooseStaging(root dir, path string, o Options) (dir, error) {
	if o.Staging != "" {
		return openStaging(root, o.Staging)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return dir{}, pathError("open root", path, err)
	}
	first := ErrNotDir // nothing lies beside "/"
	if real != "/" {
		var d dir
		beside := filepath.Join(filepath.Dir(real), manifest.MarkerDir+"-"+filepath.Base(real))
		if d, first = openPart(root, beside, o.Node); first == nil {
			return d, nil
		}
	}
	if err := os.Mkdir(filepath.Join(real, manifest.MarkerDir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return dir{}, errors.Join(first, err)
	}
	d, err := openPart(root, filepath.Join(real, manifest.MarkerDir, "staging"), o.Node)
	if err != nil {
		return dir{}, errors.Join(first, err)
	}
	return d, nil
}

// openPart opens a node's part of a staging directory, or all of it.
func openPart(root dir, path, node string) (dir, error) {
	if node == "" {
		return openStaging(root, path)
	}
	made := os.Mkdir(path, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return dir{}, fmt.Errorf("staging directory: %w", made)
	}
	d, err := openStaging(root, filepath.Join(path, node))
	if err != nil && made == nil {
		_ = os.Remove(path)
	}
	return d, err
}

// openStaging makes and opens path, and sees that files move between it and
// the root. What it made in vain it removes.
func openStaging(root dir, path string) (d dir, err error) {
	made := os.Mkdir(path, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return dir{}, fmt.Errorf("staging directory: %w", made)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("staging directory: %w", pathError("try", path, err))
			if made == nil {
				_ = os.Remove(path)
			}
		}
	}()
	if fi, err := os.Lstat(path); err != nil || !fi.IsDir() {
		return dir{}, errors.Join(ErrNotDir, err)
	}
	if d, err = openDir(path); err != nil {
		return dir{}, err
	}
	err = d.do(func(stage int) error {
		return root.do(func(rootfd int) error {
			if err := unix.Fchmod(stage, 0o700); err != nil {
				return err
			}
			return probeMove(rootfd, stage)
		})
	})
	if err != nil {
		_ = d.close()
		return dir{}, err
	}
	return d, nil
}

// probeMove moves a file from stage into the root's .gatesync directory and
// back. Equal device numbers would not do: bind mounts, subvolumes and project
// quotas refuse renames too.
func probeMove(rootfd, stage int) error {
	a, err := fstat(rootfd)
	if err != nil {
		return err
	}
	b, err := fstat(stage)
	if err != nil {
		return err
	}
	if a.Dev != b.Dev {
		return unix.EXDEV
	}
	err = unix.Mkdirat(rootfd, manifest.MarkerDir, 0o755)
	if err == nil {
		// Made for the probe alone. Somebody may have put his marker into it
		// by then; so be it.
		defer func() { _ = unix.Unlinkat(rootfd, manifest.MarkerDir, unix.AT_REMOVEDIR) }()
	} else if !errors.Is(err, unix.EEXIST) {
		return err
	}
	inner, err := openat(rootfd, manifest.MarkerDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(inner)
	name := probeName()
	fd, err := openat(stage, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_ = unix.Close(fd)
	if err := moveNew(stage, name, inner, name); err != nil {
		_ = unix.Unlinkat(stage, name, 0)
		return err
	}
	return unix.Unlinkat(inner, name, 0)
}

// probeName is nobody else's: on a shared mount several nodes may try at once.
func probeName() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return "probe-" + hex.EncodeToString(b)
}

// probe finds out what works, with files of its own in the staging directory.
func (r *Root) probe() (c Capabilities, err error) {
	r.caps.Leases = true // to be tried
	c.Leases = r.leasable() && r.probeLease()
	err = r.stage.do(func(dirfd int) error {
		a, b := probeName(), probeName()
		defer func() { _ = unix.Unlinkat(dirfd, a, 0); _ = unix.Unlinkat(dirfd, b, 0) }()
		from, err := openat(dirfd, a, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		defer unix.Close(from)
		to, err := openat(dirfd, b, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		defer unix.Close(to)
		c.Exchange = unix.Renameat2(dirfd, a, dirfd, b, unix.RENAME_EXCHANGE) == nil
		if _, err := unix.Write(from, make([]byte, 4096)); err != nil {
			return nil // a full disk is no reason to fail here
		}
		c.Reflink = unix.IoctlFileClone(to, from) == nil
		return nil
	})
	return c, err
}

// leasable tells whether a lease on this file system is the kernel's own. NFSv4
// grants one while it holds a delegation of the server's, refuses it else with
// the very error that means "a writer", and breaks it for our own renames: no
// deletion would ever go on. SMB does likewise.
func (r *Root) leasable() bool {
	own := false
	_ = r.stage.do(func(fd int) error {
		var st unix.Statfs_t
		err := unix.Fstatfs(fd, &st)
		own = err == nil && !slices.Contains([]int64{unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC}, int64(st.Type))
		return err
	})
	return own
}

// probeLease leases a file that certainly nobody writes.
func (r *Root) probeLease() bool {
	// A child between fork and exec has a copy of every descriptor, and would
	// look like a writer.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	name := probeName()
	w, err := r.Create(name, 0o600)
	if err != nil {
		return false
	}
	defer func() { _ = r.RemoveStaged(name) }()
	if err := w.Close(); err != nil {
		return false
	}
	f, err := r.OpenStaged(name)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Lease()
	return err == nil
}
