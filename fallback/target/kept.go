package target

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/syncer"
)

// KeptItem is content that a push has displaced at a target.
type KeptItem struct {
	Tree string
	syncer.Conflict
}

// IsTarget tells whether a data directory is a target's.
func IsTarget(dataDir string) bool {
	_, err := os.Stat(filepath.Join(dataDir, "receive.lock"))
	return err == nil
}

// Kept lists what a target keeps aside. No push may be under way.
func Kept(dataDir string) (list []KeptItem, err error) {
	lock, err := lockDir(dataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	dirs, err := os.ReadDir(filepath.Join(dataDir, "trees"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, d := range dirs {
		records := filepath.Join(dataDir, "trees", d.Name(), "records")
		if _, err := os.Lstat(records); errors.Is(err, os.ErrNotExist) {
			continue
		}
		conflicts, err := syncer.ConflictsIn(records)
		if err != nil {
			return nil, fmt.Errorf("tree %s: %w", d.Name(), err)
		}
		for _, c := range conflicts {
			list = append(list, KeptItem{d.Name(), c})
		}
	}
	return list, nil
}

// KeptContent writes what is kept under an id. No push may be under way.
func KeptContent(dataDir, id string, w io.Writer) (err error) {
	list, err := Kept(dataDir)
	if err != nil {
		return err
	}
	lock, err := lockDir(dataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	for _, k := range list {
		if k.ID != id {
			continue
		}
		if !k.Lost.HasContent() {
			return fmt.Errorf("%q kept a %s aside, which has no content", id, k.Lost)
		}
		blobs, err := blob.Open(filepath.Join(dataDir, "blobs"), blob.Options{})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, blobs.Close()) }()
		r, err := blobs.Open(k.Lost.Digest)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(w, r)
		return err
	}
	return fmt.Errorf("%q: %w", id, syncer.ErrNoConflict)
}

// DropKept forgets what is kept under an id; its content goes with the next push.
func DropKept(dataDir, id string) (err error) {
	list, err := Kept(dataDir)
	if err != nil {
		return err
	}
	lock, err := lockDir(dataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	for _, k := range list {
		if k.ID == id {
			return syncer.DropConflictIn(filepath.Join(dataDir, "trees", k.Tree, "records"), id)
		}
	}
	return fmt.Errorf("%q: %w", id, syncer.ErrNoConflict)
}
