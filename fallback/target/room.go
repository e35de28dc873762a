package target

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// freeOn tells how many bytes may still be taken on a directory's disk.
func freeOn(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// roomError makes a full disk a refusal that says what to do.
func roomError(err error) error {
	if errors.Is(err, blob.ErrNoRoom) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return refused(CodeRoom, "the target's disk is full (%v): free some and push again; what has arrived is not sent again", err)
	}
	return err
}

// liveContent gathers what is kept aside in all trees of this target.
func (r *Receiver) liveContent(tree string, t *syncer.Target, live map[manifest.Digest]struct{}) error {
	add := func(list []syncer.Conflict, err error) error {
		for _, c := range list {
			live[c.Lost.Digest] = struct{}{}
		}
		return err
	}
	if err := add(t.Conflicts()); err != nil {
		return err
	}
	dirs, err := os.ReadDir(filepath.Join(r.cfg.DataDir, "trees"))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		r.mu.Lock()
		busy := r.busy[d.Name()]
		r.mu.Unlock()
		if d.Name() == tree || busy { // tidy does nothing then
			continue
		}
		records := filepath.Join(r.treeDir(d.Name()), "records")
		if _, err := os.Lstat(records); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := add(syncer.ConflictsIn(records)); err != nil {
			return err
		}
	}
	return nil
}
