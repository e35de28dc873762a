package nfs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gatesync/gatesync/integration/standing"
)

// snapshot is what stands in a tree, read by the test itself: path → kind, mode
// and the SHA-256 of the bytes or of the target. Every file is opened and read:
// what a mount says about a file that it does not open may be old.
type snapshot = standing.Tree

func readTree(root string) (snapshot, error) {
	s := snapshot{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		switch {
		case rel == ".":
			return nil
		case rel == ".gatesync":
			return filepath.SkipDir
		case strings.HasPrefix(d.Name(), ".nfs"): // removed while somebody has it open
			return nil
		}
		switch {
		case d.Type().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			info, err := os.Lstat(path)
			if err != nil {
				return err
			}
			s[rel] = fmt.Sprintf("%v %d %x", info.Mode(), len(b), sha256.Sum256(b))
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			s[rel] = "-> " + target
		default:
			s[rel] = d.Type().String()
		}
		return nil
	})
	return s, err
}

// waitEqual waits until the trees of the nodes (none named: of all) hold the
// same, and returns what. What is read must not change any more: somebody
// writes at the end of the test, or nobody.
func (c *cluster) waitEqual(limit time.Duration, nodes ...*node) (tree snapshot) {
	c.b.t.Helper()
	if len(nodes) == 0 {
		nodes = c.nodes
	}
	eventually(c.b.t, limit, "equal trees", func() error {
		for i, n := range nodes {
			got, err := readTree(n.tree)
			if err == nil && i > 0 {
				err = tree.Differs(got)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			tree = got
		}
		return nil
	})
	return tree
}

// write writes a file in place, as most tools do, and makes its directories.
func write(root, path, text string) error {
	p := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	return os.WriteFile(p, []byte(text), 0o644)
}

// stands asks whether a path of a tree holds exactly this; "" is nothing.
func stands(root, path, want string) error {
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(b) != want {
		return fmt.Errorf("%s holds %.60q, want %.60q", filepath.Join(root, path), b, want)
	}
	return nil
}

// passes sees to it that what is written on one node stands on others in time,
// and returns how long it took.
func (c *cluster) passes(limit time.Duration, from *node, path, text string, to ...*node) time.Duration {
	c.b.t.Helper()
	c.b.check(write(from.tree, path, text))
	return eventually(c.b.t, limit, from.name+"'s write of "+path+" passes", func() error {
		for _, n := range to {
			if err := stands(n.tree, path, text); err != nil {
				return err
			}
		}
		return nil
	})
}
