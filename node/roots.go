package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// RootError: a tree's directory cannot become a tree of this cluster.
type RootError struct {
	Tree, Path string
	Reason     string
}

func (e *RootError) Error() string { return fmt.Sprintf("tree %s: %s %s", e.Tree, e.Path, e.Reason) }

// ignores compiles every tree's preset and globs.
func ignores(cfg config.Config) (map[string]*manifest.Ignore, error) {
	all := map[string]*manifest.Ignore{}
	for _, t := range cfg.Trees {
		preset := t.Preset
		if preset == "" {
			preset = "plain"
		}
		ig, err := manifest.NewIgnore(preset, t.Ignore)
		if err != nil {
			return nil, fmt.Errorf("tree %s: %w", t.Name, err)
		}
		all[t.Name] = ig
	}
	return all, nil
}

// checkRoots looks at the trees' directories before a node is made. It returns
// those that do not exist yet, and the clusters that the existing ones' markers
// name.
func checkRoots(cfg config.Config) (missing, clusters []string, err error) {
	for _, t := range cfg.Trees {
		gate := vfs.NewGate(t.Path) // it may lie on a mount that hangs
		info, err := vfs.Pass(gate, "stat", func() (os.FileInfo, error) { return os.Stat(t.Path) }, nil)
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, t.Path)
			continue
		}
		if err != nil {
			return nil, nil, &RootError{t.Name, t.Path, "cannot be looked at: " + err.Error()}
		}
		if !info.IsDir() {
			return nil, nil, &RootError{t.Name, t.Path, "is no directory"}
		}
		c, err := vfs.Pass(gate, "read the marker", func() (string, error) { return markedFor(t.Path) }, nil)
		if err != nil {
			return nil, nil, &RootError{t.Name, t.Path, err.Error()}
		}
		if c != "" {
			clusters = append(clusters, c)
		}
	}
	return missing, clusters, nil
}

// markedFor reads which cluster a directory belongs to, "" if none.
func markedFor(root string) (string, error) {
	b, err := os.ReadFile(filepath.Join(root, manifest.MarkerDir, "marker.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("has a marker that cannot be read: %w", err)
	}
	var m struct {
		Cluster string `json:"cluster"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return "", fmt.Errorf("has a damaged marker (%w): remove its %s directory if no cluster uses it", err, manifest.MarkerDir)
	}
	return m.Cluster, nil
}

// makeRoots makes the directories that did not exist.
func makeRoots(missing []string) error {
	for _, dir := range missing {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the tree's directory: %w", err)
		}
	}
	return nil
}
