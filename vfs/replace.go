package vfs

import (
	"errors"
	"os"
	"path/filepath"
)

// ReplaceFile replaces a file of the daemon's own, outside of any tree, so that
// a crash leaves the old or the new one. It is flushed, and so is its directory.
func ReplaceFile(path string, content []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+beside)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it was renamed
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode)); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// beside ends the name of a file that is to replace another one.
const beside = ".new-*"

// SweepReplaced removes what crashes have left of ReplaceFile in dir, where
// nobody replaces anything now. What cannot be removed stays: it is in nobody's way.
func SweepReplaced(dir string) {
	left, _ := Like(dir, "*"+beside)
	for _, file := range left {
		_ = os.Remove(file)
	}
}

// SyncDir flushes a directory of the daemon's own: which names are in it.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
