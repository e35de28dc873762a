package node

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/vfs"
)

// apart keeps the directories of a node apart by where they really are: the
// settings compare names, and a symlink may lead from one into another. What lies
// in a tree would be replicated, and what lies around one would be, too.
//
// Places are told when they are opened; the share, which can do without, yields
// to trees that are opened later. Safe for concurrent use.
type apart struct {
	data string // the data directory

	mu    sync.Mutex
	trees map[string]string // places by name
}

func newApart(cfg config.Config) (*apart, error) {
	data, err := realOf(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	return &apart{data: data, trees: map[string]string{}}, nil
}

// tree takes the place of a tree, or refuses it.
func (a *apart) tree(name, path, real string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.meets(name, real); err != nil {
		return &RootError{name, path, leads(path, real) + err.Error()}
	}
	a.trees[name] = real
	return nil
}

// share refuses the place of the share.
func (a *apart) share(path, real string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.meets("", real); err != nil {
		return fmt.Errorf("share %s: %s%w", path, leads(path, real), err)
	}
	return nil
}

// meets names what lies in a directory, or around it. name is a tree that does not
// count. a.mu is held.
func (a *apart) meets(name, real string) error {
	if config.Nested(real, a.data) {
		return fmt.Errorf("and the data directory (%s) lie in one another: name another directory", a.data)
	}
	for other, place := range a.trees {
		if other != name && config.Nested(real, place) {
			return fmt.Errorf("and tree %s (%s) lie in one another: name another directory", other, place)
		}
	}
	return nil
}

func leads(path, real string) string {
	if filepath.Clean(path) == real {
		return ""
	}
	return "leads to " + real + ", "
}

// openRoot opens a tree's root where it is apart from everything else.
func (a *apart) openRoot(name string, gate *vfs.Gate, path string, o vfs.Options) (vfs.FS, error) {
	if gate.Resolve() == nil { // else opening it says what is wrong
		if err := a.tree(name, path, gate.Real()); err != nil {
			return nil, err
		}
	}
	return gate.OpenRoot(o)
}

// realOf follows the symlinks of a path, as far as it exists.
func realOf(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) || filepath.Dir(path) == path {
		return real, err
	}
	dir, err := realOf(filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}

// checkApart looks at the directories of settings before a node is made of them.
func checkApart(cfg config.Config) (*apart, error) {
	a, err := newApart(cfg)
	if err != nil {
		return nil, err
	}
	for _, t := range cfg.Trees {
		real, err := vfs.Pass(vfs.NewGate(t.Path), "resolve", func() (string, error) { return realOf(t.Path) }, nil)
		if err != nil {
			return nil, &RootError{t.Name, t.Path, "cannot be looked at: " + err.Error()}
		}
		if err := a.tree(t.Name, t.Path, real); err != nil {
			return nil, err
		}
	}
	return a, nil
}
