package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/fallback"
	"github.com/gatesync/gatesync/vfs"
)

// Directories that lie in one another by a symlink are refused, by name and with
// the place that it leads to: before a node is made, and whenever one is opened.
func TestDirectoriesThatMeetBehindASymlink(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a/in", "b", "data", "share"} {
		if err := os.MkdirAll(at(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"to-a": "a", "to-in": "a/in", "to-data": "data", "to-dir": "."} {
		if err := os.Symlink(to, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	trees := func(paths ...string) (out []config.Tree) {
		for i, p := range paths {
			out = append(out, config.Tree{Name: string(rune('k' + i)), Path: at(p)})
		}
		return out
	}
	for name, c := range map[string]struct {
		trees []config.Tree
		share string
		want  []string
	}{
		"all apart":                       {trees("a", "b", "not/there"), "share", nil},
		"one tree twice":                  {trees("a", "to-a"), "", []string{"tree l", "leads to", "tree k"}},
		"a tree in a tree":                {trees("a", "to-in"), "", []string{"tree l", "tree k", at("a/in")}},
		"a tree around one":               {trees("a", "to-dir"), "", []string{"tree l", "leads to " + dir}},
		"a tree that is yet to be made":   {trees("a", "to-in/new"), "", []string{"tree l", at("a/in/new")}},
		"a tree in the data directory":    {trees("to-data"), "", []string{"tree k", "data directory"}},
		"the data directory in a tree":    {trees("to-dir"), "", []string{"tree k", "data directory"}},
		"the share in a tree":             {trees("a"), "to-in", []string{"share", "tree k", "leads to"}},
		"the share in the data directory": {nil, "to-data", []string{"share", "data directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.Config{DataDir: at("data"), Trees: c.trees}
			if c.share != "" {
				cfg.Share = at(c.share)
			}
			opened, err := newApart(cfg)
			if err != nil {
				t.Fatal(err)
			}
			for _, tree := range c.trees {
				root, oerr := opened.openRoot(tree.Name, vfs.NewGate(tree.Path), tree.Path, vfs.Options{Staging: t.TempDir()})
				if oerr == nil {
					_ = root.Close()
				} else if !strings.Contains(tree.Path, "not") && !strings.Contains(tree.Path, "new") { // these are missing
					err = oerr
				}
			}
			if c.share != "" {
				err = fallback.PrepareShare(cfg.Share, func(real string) error { return opened.share(cfg.Share, real) })
				if c.want == nil && err != nil && strings.Contains(err.Error(), "nothing is mounted") {
					err = nil
				}
			}
			if !strings.Contains(name, "yet to be made") {
				says(t, "opening them", err, c.want)
			}
			before, err := checkApart(cfg)
			if err == nil && c.share != "" && c.want != nil {
				err = prepareShare(cfg, before)
			}
			says(t, "making a node", err, c.want)
		})
	}
}

func says(t *testing.T, what string, err error, want []string) {
	t.Helper()
	if want == nil && err != nil || want != nil && err == nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %v does not say %q", what, err, w)
		}
	}
}

// The share yields to a tree that is found around it later.
func TestShareYieldsToATree(t *testing.T) {
	a, err := newApart(config.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.share("/s", "/m/tree/share"); err != nil {
		t.Fatal(err)
	}
	if err := a.tree("server", "/t", "/m/tree"); err != nil {
		t.Fatal(err)
	}
	says(t, "the next look", a.share("/s", "/m/tree/share"), []string{"tree server", "leads to /m/tree/share"})
}
