package target

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
	"github.com/gatesync/gatesync/vfs"
)

// open opens a tree's root, which nobody else may push to meanwhile.
func (r *Receiver) open(tree config.Tree, fresh bool) (*syncer.Target, error) {
	ignore, err := manifest.NewIgnore(tree.Preset, tree.Ignore)
	if err != nil {
		return nil, err
	}
	records := filepath.Join(r.treeDir(tree.Name), "records")
	if _, err := os.Lstat(records); errors.Is(err, os.ErrNotExist) {
		// The first push makes the directory, but never what should be mounted above it.
		if err := os.Mkdir(tree.Path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, refused(CodeRoot, "%v: make it, or name a directory that stands there", err)
		}
	}
	t, err := syncer.OpenTarget(syncer.Config{
		Self: "target", Tree: tree.Name, ClusterID: "target", TreeID: "target",
		OpenRoot: func() (vfs.FS, error) {
			root, err := vfs.OpenRoot(tree.Path, vfs.Options{})
			if err != nil {
				return nil, err
			}
			if err := root.Lock(); err != nil {
				return nil, errors.Join(err, root.Close())
			}
			return root, nil
		},
		Records: records, Blobs: r.blobs, Ignore: ignore, ModeMask: modeMask(tree), Reserve: r.cfg.Reserve,
		Loop: syncer.LoopConfig{Rank: manifest.Rank(tree.Preset)}, BootID: bootID(), Logger: r.cfg.Log,
	}, fresh)
	switch {
	case err == nil:
		return t, nil
	case errors.Is(err, vfs.ErrLocked):
		return nil, refused(CodeBusy, "another push to %s is under way: try again when it has ended", tree.Path)
	case errors.Is(err, syncer.ErrRootBare):
		return nil, refused(CodeRootBare, "%s was pushed to before, and has lost its marker (.gatesync/marker.json): it was emptied, or what should be mounted there is not. "+
			"Nothing was changed. Put it back; or push with --fresh-root to fill this directory anew", tree.Path)
	case errors.Is(err, syncer.ErrRootLost):
		return nil, refused(CodeRoot, "%v", strings.ReplaceAll(err.Error(), "this node", "this target"))
	}
	return nil, err
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
