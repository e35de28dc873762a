package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gatesync/gatesync/integration/standing"
)

// snapshot is what stands in a tree, read by the test itself: each path with
// its kind, mode and the SHA-256 of its bytes or of its target.
type snapshot = standing.Tree

// reader reads trees. It remembers the digest of an inode that was not
// touched since (inode, size, mtime, ctime), so that asking often is cheap.
// Safe for concurrent use.
type reader struct {
	mu   sync.Mutex
	seen map[stamp]string
}

type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func newReader() *reader { return &reader{seen: map[stamp]string{}} }

// read takes the snapshot of a tree. It leaves out .gatesync at the root, and
// nothing else: a stray temporary file is a difference. It fails with
// errMoving where the tree changes under it.
func (r *reader) read(root string) (snapshot, error) {
	s := snapshot{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		switch rel {
		case ".":
			return nil
		case ".gatesync":
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := fmt.Sprintf("%v", info.Mode())
		switch {
		case info.Mode().IsRegular():
			sum, err := r.sum(path, info)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %d %s", info.Size(), sum)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += " -> " + target
		}
		s[rel] = what
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errMoving
	}
	return s, err
}

var errMoving = errors.New("the tree changes while it is read")

func (r *reader) sum(path string, info fs.FileInfo) (string, error) {
	st := info.Sys().(*syscall.Stat_t)
	k := stamp{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
	r.mu.Lock()
	sum, ok := r.seen[k]
	r.mu.Unlock()
	if ok {
		return sum, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	after, err := f.Stat()
	if err != nil {
		return "", err
	}
	if a := after.Sys().(*syscall.Stat_t); a.Ino != st.Ino || a.Size != st.Size || a.Mtim != st.Mtim || a.Ctim != st.Ctim {
		return "", errMoving
	}
	sum = hex.EncodeToString(h.Sum(nil))
	r.mu.Lock()
	r.seen[k] = sum
	r.mu.Unlock()
	return sum, nil
}

// fileCount counts the regular files of a tree.
func fileCount(s snapshot) (n int) {
	for _, what := range s {
		if strings.HasPrefix(what, "-") {
			n++
		}
	}
	return n
}

// write writes a file in place, as most tools do, and makes its directories.
func write(t testing.TB, root, path, content string) {
	t.Helper()
	if err := writeFile(root, path, content); err != nil {
		t.Fatal(err)
	}
}

func writeFile(root, path, content string) error {
	p := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	return os.WriteFile(p, []byte(content), 0o644)
}

// remove takes paths away, whatever they are.
func remove(t testing.TB, root string, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.RemoveAll(filepath.Join(root, p)); err != nil {
			t.Fatal(err)
		}
	}
}

// rename moves what stands at one path of a tree to another.
func rename(t testing.TB, root, from, to string) {
	t.Helper()
	if err := os.Rename(filepath.Join(root, from), filepath.Join(root, to)); err != nil {
		t.Fatal(err)
	}
}

// content returns what stands at a path, "" where nothing does.
func content(root, path string) string {
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return ""
	}
	return string(b)
}

// stands asks whether a path of a tree holds exactly this content.
func stands(root, path, want string) error {
	if got := content(root, path); got != want {
		return fmt.Errorf("%s holds %.60q, want %.60q", filepath.Join(root, path), got, want)
	}
	return nil
}
