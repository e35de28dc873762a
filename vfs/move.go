package vfs

import (
	"errors"

	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
)

// both runs fn with the staging directory and the one that p stands in.
func (r *Root) both(op string, p manifest.Path, name string, fn func(stage, dirfd int, base string) error) error {
	if err := stagedName(name); err != nil {
		return pathError(op, name, err)
	}
	return r.in(op, p, func(dirfd int, base string) error {
		return r.stage.do(func(stage int) error { return fn(stage, dirfd, base) })
	})
}

// Exchange implements Mover.
func (r *Root) Exchange(name string, p manifest.Path) error {
	return r.both("exchange", p, name, func(stage, dirfd int, base string) error {
		err := unix.Renameat2(stage, name, dirfd, base, unix.RENAME_EXCHANGE)
		if unsupported(err) {
			return ErrNoExchange
		}
		return err
	})
}

// Place implements Mover.
func (r *Root) Place(name string, p manifest.Path) error {
	return r.both("place", p, name, func(stage, dirfd int, base string) error {
		return moveNew(stage, name, dirfd, base)
	})
}

// Replace implements Mover.
func (r *Root) Replace(name string, p manifest.Path) error {
	return r.both("replace", p, name, func(stage, dirfd int, base string) error {
		return unix.Renameat(stage, name, dirfd, base)
	})
}

// TakeOut implements Mover.
func (r *Root) TakeOut(p manifest.Path, name string) error {
	return r.both("take out", p, name, func(stage, dirfd int, base string) error {
		st, err := lstatat(dirfd, base)
		if err != nil {
			return err
		}
		if st.Kind == manifest.Dir {
			return ErrIsDir
		}
		return moveNew(dirfd, base, stage, name)
	})
}

// LinkOut implements Mover.
func (r *Root) LinkOut(p manifest.Path, name string) error {
	return r.both("link out", p, name, func(stage, dirfd int, base string) error {
		return unix.Linkat(dirfd, base, stage, name, 0)
	})
}

// moveNew renames to a name that nothing may have.
func moveNew(fromDir int, from string, toDir int, to string) error {
	err := unix.Renameat2(fromDir, from, toDir, to, unix.RENAME_NOREPLACE)
	if !unsupported(err) {
		return err
	}
	return linkMove(fromDir, from, toDir, to)
}

// linkMove is moveNew for NFS, which knows no flags of rename. A link refuses
// an existing name just as well; until the old name is gone the file has two,
// and a crash leaves both.
func linkMove(fromDir int, from string, toDir int, to string) error {
	err := unix.Linkat(fromDir, from, toDir, to, 0)
	if err == nil {
		return unix.Unlinkat(fromDir, from, 0)
	}
	if !unsupported(err) && !errors.Is(err, unix.EPERM) {
		return err
	}
	// No links either (FAT, some network mounts): all that is left is to look first.
	switch _, err := lstatat(toDir, to); {
	case err == nil:
		return unix.EEXIST
	case !errors.Is(err, unix.ENOENT):
		return err
	}
	return unix.Renameat(fromDir, from, toDir, to)
}

// Mkdir implements Mover.
func (r *Root) Mkdir(p manifest.Path, mode uint32) error {
	return r.in("mkdir", p, func(dirfd int, name string) error {
		if err := unix.Mkdirat(dirfd, name, mode&0o7777); err != nil {
			return err
		}
		st, err := lstatat(dirfd, name)
		if err != nil {
			return err
		}
		// The umask may have taken bits away; a setgid bit that the parent
		// passes on stays.
		return chmodat(dirfd, name, st, mode|st.Mode&unix.S_ISGID)
	})
}

// Rmdir implements Mover.
func (r *Root) Rmdir(p manifest.Path) error {
	return r.in("rmdir", p, func(dirfd int, name string) error {
		err := unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
		switch {
		case errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST):
			return ErrNotEmpty
		case errors.Is(err, unix.ENOTDIR):
			return ErrNotDir
		}
		return err
	})
}

// Chmod implements Mover.
func (r *Root) Chmod(p manifest.Path, expect Stat, mode uint32) error {
	return r.in("chmod", p, func(dirfd int, name string) error {
		return chmodat(dirfd, name, expect, mode)
	})
}

// SyncDir implements Flusher.
func (r *Root) SyncDir(p manifest.Path) error { return r.at("sync", p, fsync) }

// SyncFile implements Flusher.
func (r *Root) SyncFile(p manifest.Path) error {
	f, err := r.Open(p)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// SyncFS implements Flusher.
func (r *Root) SyncFS() error {
	return pathError("syncfs", r.path, r.root.do(func(fd int) error { return unix.Syncfs(fd) }))
}
