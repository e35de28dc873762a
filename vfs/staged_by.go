package vfs

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/manifest"
)

// beside runs fn with the directory that all nodes' parts of the staging
// directory stand in. Where this node has all of it there are no others.
func (r *Root) beside(op, name string, fn func(parts int) error) error {
	if r.node == "" {
		return pathError(op, name, unix.ENOENT)
	}
	return pathError(op, name, r.stage.do(func(fd int) error {
		parts, err := openat(fd, "..", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(parts)
		return fn(parts)
	}))
}

// Stagers implements Shared.
func (r *Root) Stagers() (list []string, err error) {
	err = r.beside("list", "", func(parts int) error {
		all, err := names(parts)
		for _, name := range all {
			if st, serr := lstatat(parts, name); serr == nil && st.Kind == manifest.Dir && name != r.node {
				list = append(list, name)
			}
		}
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return list, err
}

// StagedBy implements Shared.
func (r *Root) StagedBy(node string) (list []string, err error) {
	err = r.partOf("list", node, node, func(part int) (err error) { list, err = names(part); return err })
	return list, err
}

// TakeOver implements Shared.
func (r *Root) TakeOver(node, name, as string) error {
	if err := errors.Join(stagedName(name), stagedName(as)); err != nil {
		return pathError("take over", name, err)
	}
	return r.partOf("take over", node, name, func(part int) error {
		return r.stage.do(func(stage int) error { return moveNew(part, name, stage, as) })
	})
}

// DropStager implements Shared.
func (r *Root) DropStager(node string) error {
	if err := r.other(node); err != nil {
		return pathError("remove", node, err)
	}
	return r.beside("remove", node, func(parts int) error {
		err := unix.Unlinkat(parts, node, unix.AT_REMOVEDIR)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if errors.Is(err, unix.EEXIST) {
			return ErrNotEmpty
		}
		return err
	})
}

func (r *Root) partOf(op, node, name string, fn func(part int) error) error {
	if err := r.other(node); err != nil {
		return pathError(op, node, err)
	}
	return r.beside(op, name, func(parts int) error {
		fd, err := openat(parts, node, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return fn(fd)
	})
}

// other refuses this node's own part, and what is no name.
func (r *Root) other(node string) error {
	if slices.Contains([]string{"", r.node}, node) {
		return ErrName
	}
	return stagedName(node)
}
