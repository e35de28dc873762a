package vfs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a root in a directory of its own.
func open(t testing.TB) *Root {
	t.Helper()
	r, err := OpenRoot(filepath.Join(t.TempDir(), "tree"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// eachWalk runs a test with openat2 and with the walk that replaces it.
func eachWalk(t *testing.T, test func(t *testing.T, r *Root)) {
	t.Run("openat2", func(t *testing.T) {
		r := open(t)
		fd, err := beneath(unix.AT_FDCWD, ".", unix.O_PATH)
		if err != nil {
			t.Skip("no openat2 here: ", err)
		}
		_ = unix.Close(fd)
		test(t, r)
	})
	t.Run("walk", func(t *testing.T) {
		r := open(t)
		r.beneath = walkBeneath
		test(t, r)
	})
}

// ok fails the test on an error.
func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// is fails the test unless err is the wanted one.
func is(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// write puts a file into the tree behind the Root's back, parents included.
func write(t testing.TB, r *Root, p, content string) {
	t.Helper()
	path := filepath.Join(r.path, p)
	ok(t, os.MkdirAll(filepath.Dir(path), 0o755))
	ok(t, os.WriteFile(path, []byte(content), 0o644))
}

// stage makes a staged file.
func stage(t testing.TB, r *Root, name, content string) {
	t.Helper()
	w, err := r.Create(name, 0o644)
	ok(t, err)
	_, err = w.Write([]byte(content))
	ok(t, errors.Join(err, w.Close()))
}

// read reads a file of the tree through the Root.
func read(t testing.TB, r *Root, p manifest.Path) string {
	t.Helper()
	f, err := r.Open(p)
	ok(t, err)
	return readAll(t, f)
}

func readStaged(t testing.TB, r *Root, name string) string {
	t.Helper()
	f, err := r.OpenStaged(name)
	ok(t, err)
	return readAll(t, f)
}

func readAll(t testing.TB, f File) string {
	t.Helper()
	b, err := io.ReadAll(f)
	ok(t, errors.Join(err, f.Close()))
	return string(b)
}
