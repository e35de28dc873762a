package vfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
)

func TestExchangeSwapsAndShowsWhatCameOut(t *testing.T) {
	eachWalk(t, func(t *testing.T, r *Root) {
		if !r.Capabilities().Exchange {
			stage(t, r, "s", "new")
			write(t, r, "f", "old")
			is(t, "Exchange", r.Exchange("s", "f"), ErrNoExchange)
			return
		}
		write(t, r, "a/b/f", "old")
		stage(t, r, "s", "new")
		ok(t, r.Exchange("s", "a/b/f"))
		if got := read(t, r, "a/b/f"); got != "new" {
			t.Errorf("in the tree: %q", got)
		}
		if got := readStaged(t, r, "s"); got != "old" {
			t.Errorf("came out: %q", got)
		}
		is(t, "with nothing in the tree", r.Exchange("s", "a/none"), fs.ErrNotExist)
		is(t, "with nothing staged", r.Exchange("none", "a/b/f"), fs.ErrNotExist)
		ok(t, r.StageLink("l", "target"))
		ok(t, r.Exchange("l", "a/b/f"))
		if target, err := r.Readlink("a/b/f"); err != nil || target != "target" {
			t.Errorf("%q %v", target, err)
		}
	})
}

func TestPlaceNeverReplaces(t *testing.T) {
	eachWalk(t, func(t *testing.T, r *Root) {
		write(t, r, "d/f", "old")
		stage(t, r, "s", "new")
		is(t, "onto a file", r.Place("s", "d/f"), fs.ErrExist)
		is(t, "onto a directory", r.Place("s", "d"), fs.ErrExist)
		is(t, "below nothing", r.Place("s", "none/f"), fs.ErrNotExist)
		if got := read(t, r, "d/f"); got != "old" {
			t.Errorf("replaced by %q", got)
		}
		ok(t, r.Place("s", "d/g"))
		if got := read(t, r, "d/g"); got != "new" {
			t.Errorf("read %q", got)
		}
		_, err := r.StatStaged("s")
		is(t, "still staged", err, fs.ErrNotExist)
	})
}

func TestTakeOutAndBack(t *testing.T) {
	eachWalk(t, func(t *testing.T, r *Root) {
		write(t, r, "d/f", "x")
		before, err := r.Lstat("d/f")
		ok(t, err)
		stage(t, r, "taken", "y")
		is(t, "onto a staged name", r.TakeOut("d/f", "taken"), fs.ErrExist)
		is(t, "of a directory", r.TakeOut("d", "out"), ErrIsDir)
		is(t, "of nothing", r.TakeOut("d/none", "out"), fs.ErrNotExist)
		ok(t, r.TakeOut("d/f", "out"))
		_, err = r.Lstat("d/f")
		is(t, "after TakeOut", err, fs.ErrNotExist)
		st, err := r.StatStaged("out")
		ok(t, err)
		if !st.SameFile(before) || st.MTime != before.MTime {
			t.Errorf("another file came out: %+v, was %+v", st, before)
		}
		ok(t, r.Place("out", "d/f"))
		if got := read(t, r, "d/f"); got != "x" {
			t.Errorf("read %q", got)
		}
	})
}

func TestLinkOutAndReplace(t *testing.T) {
	r := open(t)
	write(t, r, "f", "old")
	stage(t, r, "s", "new")
	ok(t, r.LinkOut("f", "aside"))
	is(t, "a second time", r.LinkOut("f", "aside"), fs.ErrExist)
	ok(t, r.Replace("s", "f"))
	if got := read(t, r, "f"); got != "new" {
		t.Errorf("in the tree: %q", got)
	}
	if got := readStaged(t, r, "aside"); got != "old" {
		t.Errorf("aside: %q", got)
	}
}

func TestMoveWithoutRenameFlags(t *testing.T) {
	// What moveNew does where renameat2 knows no flags, from the link on.
	dir := t.TempDir()
	d, err := openDir(dir)
	ok(t, err)
	defer d.close()
	ok(t, os.WriteFile(filepath.Join(dir, "a"), []byte("a"), 0o600))
	ok(t, os.WriteFile(filepath.Join(dir, "b"), []byte("b"), 0o600))
	ok(t, d.do(func(fd int) error {
		is(t, "onto another", linkMove(fd, "a", fd, "b"), fs.ErrExist)
		return linkMove(fd, "a", fd, "c")
	}))
	if b, err := os.ReadFile(filepath.Join(dir, "c")); err != nil || string(b) != "a" {
		t.Errorf("%q %v", b, err)
	}
	_, err = os.Lstat(filepath.Join(dir, "a"))
	is(t, "the old name", err, fs.ErrNotExist)
}

func TestMkdirAndModes(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	eachWalk(t, func(t *testing.T, r *Root) {
		ok(t, r.Mkdir("d", 0o775))
		is(t, "again", r.Mkdir("d", 0o755), fs.ErrExist)
		ok(t, r.Mkdir("d/e", 0o750))
		for p, mode := range map[manifest.Path]uint32{"d": 0o775, "d/e": 0o750} {
			if st, err := r.Lstat(p); err != nil || st.Mode != mode || st.Kind != manifest.Dir {
				t.Errorf("%s: %+v %v", p, st, err)
			}
		}
		w, err := r.Create("s", 0o666)
		ok(t, err)
		defer w.Close()
		if st, err := w.Stat(); err != nil || st.Mode != 0o666 {
			t.Errorf("created: %+v %v", st, err)
		}
		ok(t, w.Chmod(0o640))
		if st, err := r.StatStaged("s"); err != nil || st.Mode != 0o640 {
			t.Errorf("changed: %+v %v", st, err)
		}
		ok(t, w.Sync())

		is(t, "not empty", r.Rmdir("d"), ErrNotEmpty)
		write(t, r, "f", "x")
		is(t, "a file", r.Rmdir("f"), ErrNotDir)
		ok(t, r.Rmdir("d/e"))
		ok(t, r.Rmdir("d"))
	})
}

func TestMkdirKeepsAnInheritedSetgid(t *testing.T) {
	r := open(t)
	ok(t, r.Mkdir("d", 0o755))
	ok(t, unix.Chmod(filepath.Join(r.path, "d"), 0o2755))
	ok(t, r.Mkdir("d/e", 0o755))
	if st, err := r.Lstat("d/e"); err != nil || st.Mode != 0o2755 {
		t.Errorf("%+v %v", st, err)
	}
}

func TestChmodHitsOnlyTheExpectedInode(t *testing.T) {
	eachWalk(t, func(t *testing.T, r *Root) {
		write(t, r, "d/f", "x")
		st, err := r.Lstat("d/f")
		ok(t, err)
		ok(t, r.Chmod("d/f", st, 0o600))
		after, err := r.Lstat("d/f")
		ok(t, err)
		if after.Mode != 0o600 || after.MTime != st.MTime {
			t.Errorf("%+v, was %+v", after, st)
		}
		stage(t, r, "s", "y") // while the old inode lives, so that its number is not used again
		ok(t, r.Replace("s", "d/f"))
		is(t, "another file", r.Chmod("d/f", st, 0o777), ErrChanged)
		ok(t, os.Symlink("f", filepath.Join(r.path, "d/l")))
		link, err := r.Lstat("d/l")
		ok(t, err)
		is(t, "a symlink", r.Chmod("d/l", link, 0o777), ErrChanged)
		if st, err := r.Lstat("d/f"); err != nil || st.Mode != 0o644 {
			t.Errorf("%+v %v", st, err)
		}
		dir, err := r.Lstat("d")
		ok(t, err)
		ok(t, r.Chmod("d", dir, 0o711))
		if st, err := r.Lstat("d"); err != nil || st.Mode != 0o711 {
			t.Errorf("%+v %v", st, err)
		}
	})
}

func TestSync(t *testing.T) {
	r := open(t)
	write(t, r, "d/f", "x")
	ok(t, errors.Join(r.SyncFile("d/f"), r.SyncDir("d"), r.SyncDir(""), r.SyncFS(), r.SyncStaging()))
	is(t, "SyncDir of a file", r.SyncDir("d/f"), ErrNotDir)
	is(t, "SyncFile of nothing", r.SyncFile("d/g"), fs.ErrNotExist)
}
