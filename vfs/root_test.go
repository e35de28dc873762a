package vfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// Nothing that stands in the tree or in a path leads out of it.
func TestPromise_OwnTree(t *testing.T) {
	eachWalk(t, func(t *testing.T, r *Root) {
		outside := filepath.Join(filepath.Dir(r.path), "outside")
		ok(t, os.MkdirAll(filepath.Join(outside, "d"), 0o755))
		secret := filepath.Join(outside, "secret")
		ok(t, os.WriteFile(secret, []byte("secret"), 0o600))
		write(t, r, "dir/f", "f")
		for link, target := range map[string]string{
			"abs": outside, "rel": "../outside", "up": "..", "inner": "dir", "file": "../outside/secret", "dir/deep": "../../outside",
		} {
			ok(t, os.Symlink(target, filepath.Join(r.path, link)))
		}
		stage(t, r, "s", "staged")
		through := []manifest.Path{"abs/secret", "rel/secret", "up/outside/secret", "dir/deep/secret", "inner/f", "rel/d", "abs/new"}
		ops := map[string]func(p manifest.Path) error{
			"Lstat":    func(p manifest.Path) error { _, err := r.Lstat(p); return err },
			"ReadDir":  func(p manifest.Path) error { _, err := r.ReadDir(p); return err },
			"Readlink": func(p manifest.Path) error { _, err := r.Readlink(p); return err },
			"Open":     func(p manifest.Path) error { _, err := r.Open(p); return err },
			"Exchange": func(p manifest.Path) error { return r.Exchange("s", p) },
			"Place":    func(p manifest.Path) error { return r.Place("s", p) },
			"Replace":  func(p manifest.Path) error { return r.Replace("s", p) },
			"TakeOut":  func(p manifest.Path) error { return r.TakeOut(p, "out") },
			"LinkOut":  func(p manifest.Path) error { return r.LinkOut(p, "out") },
			"Mkdir":    func(p manifest.Path) error { return r.Mkdir(p, 0o755) },
			"Rmdir":    func(p manifest.Path) error { return r.Rmdir(p) },
			"Chmod":    func(p manifest.Path) error { return r.Chmod(p, Stat{}, 0o777) },
			"SyncDir":  func(p manifest.Path) error { return r.SyncDir(p) },
			"SyncFile": func(p manifest.Path) error { return r.SyncFile(p) },
		}
		for name, op := range ops {
			for _, p := range through {
				is(t, name+" "+string(p), op(p), fs.ErrNotExist)
			}
			for _, p := range []manifest.Path{"../outside/secret", "/etc/passwd", "dir/../../outside/secret", "dir/./f", "dir//f", "a\x00b", ".gatesync/marker.json", ".."} {
				var bad *manifest.PathError
				if err := op(p); !errors.As(err, &bad) {
					t.Errorf("%s %q: %v, want a PathError of manifest", name, p, err)
				}
			}
		}
		_, err := r.Open("file")
		is(t, "Open of a symlink", err, ErrNotRegular)
		_, err = r.ReadDir("rel")
		is(t, "ReadDir of a symlink", err, ErrNotDir)
		is(t, "SyncDir of a symlink", r.SyncDir("rel"), ErrNotDir)
		for _, name := range []string{"", ".", "..", "a/b", "../tree/x", "/x", "a\x00b", strings.Repeat("n", 256)} {
			_, err := r.Create(name, 0o600)
			is(t, "Create "+name, err, ErrName)
			is(t, "TakeOut to "+name, r.TakeOut("dir/f", name), ErrName)
			is(t, "RemoveStaged "+name, r.RemoveStaged(name), ErrName)
			is(t, "StageLink "+name, r.StageLink(name, "x"), ErrName)
		}
		if b, err := os.ReadFile(secret); err != nil || string(b) != "secret" {
			t.Errorf("outside: %q %v", b, err)
		}
		if all, err := os.ReadDir(outside); err != nil || len(all) != 2 {
			t.Errorf("outside holds %v %v", all, err)
		}
	})
}

func TestAFileAsParentIsAbsence(t *testing.T) {
	eachWalk(t, func(t *testing.T, r *Root) {
		write(t, r, "f", "x")
		for _, p := range []manifest.Path{"f/x", "f/x/y", "none/x", "none"} {
			_, err := r.Lstat(p)
			is(t, "Lstat "+string(p), err, fs.ErrNotExist)
			_, err = r.ReadDir(p)
			is(t, "ReadDir "+string(p), err, fs.ErrNotExist)
		}
		_, err := r.ReadDir("f")
		is(t, "ReadDir of a file", err, ErrNotDir)
		if errors.Is(err, fs.ErrNotExist) {
			t.Error("a file that is listed must not read as absence")
		}
		_, err = r.Readlink("f")
		is(t, "Readlink of a file", err, ErrNotSymlink)
	})
}

func TestListingAndStat(t *testing.T) {
	eachWalk(t, func(t *testing.T, r *Root) {
		odd := "caf\xe9\n\xff" // not UTF-8
		long := strings.Repeat("l", 255)
		for _, n := range []string{"b", "a", odd, long} {
			write(t, r, "d/"+n, n)
		}
		write(t, r, "top", "1234")
		ok(t, os.Chmod(filepath.Join(r.path, "top"), 0o640))
		ok(t, os.Symlink("top", filepath.Join(r.path, "d", "ln")))
		ok(t, unix.Mkfifo(filepath.Join(r.path, "d", "pipe"), 0o600))
		ok(t, r.WriteMarker([]byte("{}")))

		list, err := r.ReadDir("d")
		ok(t, err)
		kinds := map[string]Kind{"b": manifest.File, "a": manifest.File, odd: manifest.File, long: manifest.File, "ln": manifest.Symlink, "pipe": Other}
		if len(list) != len(kinds) || !slices.IsSortedFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) }) {
			t.Fatalf("listed %d: %v", len(list), list)
		}
		for _, e := range list {
			if kinds[e.Name] != e.Stat.Kind {
				t.Errorf("%q is a %v", e.Name, e.Stat.Kind)
			}
			if st, err := r.Lstat(manifest.Path("d").Join(e.Name)); err != nil || st != e.Stat {
				t.Errorf("Lstat of %q: %+v, listed as %+v (%v)", e.Name, st, e.Stat, err)
			}
		}
		if got := read(t, r, manifest.Path("d/"+odd)); got != odd {
			t.Errorf("read %q", got)
		}
		rootList, err := r.ReadDir("")
		ok(t, err)
		if len(rootList) != 2 || rootList[0].Name != "d" || rootList[1].Name != "top" {
			t.Errorf("root: %v", rootList)
		}
		st, err := r.Lstat("top")
		ok(t, err)
		var sys unix.Stat_t
		ok(t, unix.Stat(filepath.Join(r.path, "top"), &sys))
		if st.Mode != 0o640 || st.Size != 4 || st.Ino != sys.Ino || st.MTime != sys.Mtim.Nano() || st.CTime != sys.Ctim.Nano() || st.Nlink != 1 {
			t.Errorf("%+v", st)
		}
		if target, err := r.Readlink("d/ln"); err != nil || target != "top" {
			t.Errorf("Readlink: %q %v", target, err)
		}
	})
}

func TestLongSymlinkTarget(t *testing.T) {
	r := open(t)
	for _, n := range []int{1, 255, 256, 257, 4000} {
		target := strings.Repeat("x", n)
		ok(t, r.StageLink("l", target))
		if got, err := r.ReadlinkStaged("l"); err != nil || got != target {
			t.Errorf("target of %d: %d bytes, %v", n, len(got), err)
		}
		ok(t, r.RemoveStaged("l"))
	}
}

func TestFIFOsAndDevicesAreNotOpened(t *testing.T) {
	r := open(t)
	ok(t, unix.Mkfifo(filepath.Join(r.path, "pipe"), 0o600))
	_, err := r.Open("pipe") // would block for ever
	is(t, "Open of a FIFO", err, ErrNotRegular)
	is(t, "SyncFile of a FIFO", r.SyncFile("pipe"), ErrNotRegular)
	_, err = r.Open("none")
	is(t, "Open of nothing", err, fs.ErrNotExist)
	write(t, r, "d/f", "")
	_, err = r.Open("d")
	is(t, "Open of a directory", err, ErrNotRegular)
}

func TestCheck(t *testing.T) {
	r := open(t)
	ok(t, r.Check())
	write(t, r, "f", "x")
	away := r.path + ".away"
	ok(t, os.Rename(r.path, away))
	is(t, "moved away", r.Check(), ErrRootMissing)
	ok(t, os.Mkdir(r.path, 0o755))
	is(t, "another in its place", r.Check(), ErrRootReplaced)
	if got := read(t, r, "f"); got != "x" { // operations go by the opened directory
		t.Errorf("read %q", got)
	}
	ok(t, os.Remove(r.path))
	ok(t, os.WriteFile(r.path, nil, 0o644))
	is(t, "a file in its place", r.Check(), ErrRootReplaced)
	ok(t, os.Remove(r.path))
	ok(t, os.Rename(away, r.path))
	ok(t, r.Check())
	ok(t, os.RemoveAll(r.Staging()))
	is(t, "its staging directory was removed", r.Check(), ErrRootReplaced)
	ok(t, r.Close())
	is(t, "after Close", r.Check(), fs.ErrClosed)
	_, err := r.Lstat("f")
	is(t, "Lstat after Close", err, fs.ErrClosed)
}

func TestOpenRootNeedsADirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	_, err := OpenRoot(path, Options{})
	is(t, "missing", err, fs.ErrNotExist)
	ok(t, os.WriteFile(path, nil, 0o644))
	_, err = OpenRoot(path, Options{})
	is(t, "a file", err, unix.ENOTDIR)
}

func TestStagingBesideIsPrivateAndLeavesNoTrace(t *testing.T) {
	r := open(t)
	want := filepath.Join(filepath.Dir(r.path), ".gatesync-tree")
	if r.Staging() != want {
		t.Fatalf("staging in %s, want %s", r.Staging(), want)
	}
	fi, err := os.Stat(want)
	ok(t, err)
	if fi.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", fi.Mode())
	}
	for _, dir := range []string{r.path, want} {
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("probes left in %s: %v %v", dir, left, err)
		}
	}
}

func TestStagingInsideWhereNothingCanLieBeside(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "tree")
	ok(t, os.WriteFile(filepath.Join(dir, ".gatesync-tree"), nil, 0o600)) // in the way
	r, err := OpenRoot(root, Options{Create: true})
	ok(t, err)
	defer r.Close()
	if want := filepath.Join(root, ".gatesync", "staging"); r.Staging() != want {
		t.Fatalf("staging in %s, want %s", r.Staging(), want)
	}
	stage(t, r, "s", "x")
	ok(t, r.Place("s", "f"))
	if list, err := r.ReadDir(""); err != nil || len(list) != 1 || list[0].Name != "f" {
		t.Errorf("%v %v", list, err)
	}
}

func TestStagingOnAnotherFilesystemIsRefused(t *testing.T) {
	other, err := os.MkdirTemp("/dev/shm", "vfs-")
	if err != nil {
		t.Skip("no second filesystem: ", err)
	}
	defer os.RemoveAll(other)
	root := t.TempDir()
	var a, b unix.Stat_t
	ok(t, errors.Join(unix.Stat(root, &a), unix.Stat(other, &b)))
	if a.Dev == b.Dev {
		t.Skip("no second filesystem")
	}
	_, err = OpenRoot(root, Options{Staging: filepath.Join(other, "s")})
	is(t, "staging elsewhere", err, unix.EXDEV)
	if left, _ := os.ReadDir(other); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLeftoversAreListed(t *testing.T) {
	r := open(t)
	stage(t, r, "b", "1")
	ok(t, r.StageLink("a", "x"))
	ok(t, r.SyncStaging())
	ok(t, r.Close())
	r, err := OpenRoot(r.path, Options{})
	ok(t, err)
	defer r.Close()
	for range 2 { // each listing starts anew
		if got, err := r.ListStaged(); err != nil || !slices.Equal(got, []string{"a", "b"}) {
			t.Fatalf("%v %v", got, err)
		}
	}
	if got := readStaged(t, r, "b"); got != "1" {
		t.Errorf("read %q", got)
	}
}

func TestMarker(t *testing.T) {
	r := open(t)
	_, err := r.ReadMarker()
	is(t, "no marker", err, fs.ErrNotExist)
	for _, content := range []string{"one", "two, longer", ""} {
		ok(t, r.WriteMarker([]byte(content)))
		if got, err := r.ReadMarker(); err != nil || string(got) != content {
			t.Errorf("%q %v", got, err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(r.path, ".gatesync")); err != nil || len(left) != 1 {
		t.Errorf("%v %v", left, err)
	}
	ok(t, os.RemoveAll(filepath.Join(r.path, ".gatesync")))
	ok(t, os.Symlink(t.TempDir(), filepath.Join(r.path, ".gatesync")))
	_, err = r.ReadMarker()
	is(t, "a symlink in the marker's place", err, fs.ErrNotExist)
	if err := r.WriteMarker([]byte("x")); err == nil {
		t.Error("wrote through a symlink")
	}
}

func TestFreeIsPlausible(t *testing.T) {
	r := open(t)
	if n, err := r.Free(); err != nil || n <= 0 {
		t.Fatalf("%d %v", n, err)
	}
}

// Any file that the tree can hold comes back as it was staged.
func TestAnyNameAndContentComesBack(t *testing.T) {
	r := open(t)
	rapid.Check(t, func(rt *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), 1, 255).Draw(rt, "name")
		p, err := manifest.ParsePath(strings.ReplaceAll(string(raw), "/", "_"))
		if err != nil {
			rt.Skip()
		}
		content := rapid.String().Draw(rt, "content")
		mode := uint32(rapid.IntRange(0o400, 0o777).Draw(rt, "mode"))
		w, err := r.Create("s", mode)
		ok(t, err)
		_, err = w.Write([]byte(content))
		ok(t, err)
		ok(t, w.Chtimes(1234567890123456789))
		ok(t, w.Close())
		ok(t, r.Place("s", p))
		st, err := r.Lstat(p)
		ok(t, err)
		if st.Mode != mode || st.Size != int64(len(content)) || st.MTime != 1234567890123456789 {
			rt.Errorf("%+v", st)
		}
		if os.Geteuid() == 0 || mode&0o400 != 0 {
			if got := read(t, r, p); got != content {
				rt.Errorf("read %q", got)
			}
		}
		ok(t, r.TakeOut(p, "s"))
		ok(t, r.RemoveStaged("s"))
	})
}

func BenchmarkLstatDeep(b *testing.B) {
	r := open(b)
	write(b, r, "a/b/c/d/e/f", "x")
	for b.Loop() {
		if _, err := r.Lstat("a/b/c/d/e/f"); err != nil {
			b.Fatal(err)
		}
	}
}
