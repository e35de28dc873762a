package vfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Like lists the files in dir, one of the daemon's own, whose names match a
// pattern of filepath.Match; none where there is no dir. Unlike filepath.Glob it
// takes dir at its word: a directory may be called "gw[1]".
func Like(dir, pattern string) (paths []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		fits, err := filepath.Match(pattern, e.Name())
		if err != nil {
			return nil, err
		}
		if fits {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}
