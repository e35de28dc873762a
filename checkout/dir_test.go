package checkout

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatesync/gatesync/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func file(content string, mode uint32) manifest.Entry {
	return manifest.Entry{Kind: manifest.File, Mode: mode, Size: int64(len(content)), Digest: manifest.DigestOf([]byte(content)), MTime: time.Unix(1_600_000_000, 5000).UnixNano()}
}

func link(target string) manifest.Entry {
	return manifest.Entry{Kind: manifest.Symlink, Mode: 0o777, Size: int64(len(target)), Target: target, Digest: manifest.DigestOf([]byte(target))}
}

func open(t *testing.T, dir string) *Dir {
	t.Helper()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func put(t *testing.T, d *Dir, p manifest.Path, e manifest.Entry, content string) {
	t.Helper()
	if err := d.Put(p, e, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		all = append(all, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestCommit(t *testing.T) {
	for _, exists := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "a", "copy")
		if exists {
			if err := os.MkdirAll(dir, 0o750); err != nil {
				t.Fatal(err)
			}
		}
		d := open(t, dir)
		put(t, d, "closed", manifest.Entry{Kind: manifest.Dir, Mode: 0o555}, "")
		put(t, d, "closed/in", manifest.Entry{Kind: manifest.Dir, Mode: 0o700}, "")
		put(t, d, "closed/in/run.sh", file("#!/bin/sh\n", 0o751), "#!/bin/sh\n")
		put(t, d, "empty.xml", file("", 0o666), "")
		put(t, d, "link", link("closed/in/run.sh"), "")
		if got := names(t, dir); len(got) != len([]string{".", stageName})+5 {
			t.Fatalf("before the end there stands %q", got)
		}
		if err := d.Commit(); err != nil {
			t.Fatal(err)
		}
		want := []string{".", "closed", "closed/in", "closed/in/run.sh", "empty.xml", "link"}
		if got := names(t, dir); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("have %q, want %q", got, want)
		}
		for name, mode := range map[string]fs.FileMode{"closed": fs.ModeDir | 0o555, "closed/in": fs.ModeDir | 0o700, "closed/in/run.sh": 0o751, "empty.xml": 0o666} {
			info, err := os.Lstat(filepath.Join(dir, name))
			if err != nil || info.Mode() != mode {
				t.Errorf("%s is %v, want %v (%v)", name, info.Mode(), mode, err)
			}
		}
		if info, err := os.Stat(filepath.Join(dir, "link")); err != nil || info.ModTime().UnixNano() != file("", 0).MTime {
			t.Errorf("through the link: %v, %v", info, err)
		}
	}
}

func TestRefusesWhatHoldsSomething(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	var full *NotEmptyError
	if _, err := Open(dir); !errors.As(err, &full) || full.Name != "mine" {
		t.Errorf("%v", err)
	}
	if _, err := Open(filepath.Join(dir, "mine")); err == nil {
		t.Error("a file was taken for a directory")
	}
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("there stands %q now", got)
	}
}

func TestGoesOnAfterAnInterruption(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "copy")
	d := open(t, dir)
	put(t, d, "half", file("old", 0o644), "old")
	var busy *BusyError
	if _, err := Open(dir); !errors.As(err, &busy) {
		t.Errorf("two at once: %v", err)
	}
	if err := d.close(); err != nil { // as a process that is killed
		t.Fatal(err)
	}
	d = open(t, dir)
	put(t, d, "new", file("new", 0o644), "new")
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names(t, dir), " "); got != ". new" {
		t.Errorf("there stands %q", got)
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	put(t, d, "a.xml", file("ours", 0o644), "ours")
	if err := os.WriteFile(filepath.Join(dir, "a.xml"), []byte("theirs"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("commit: %v", err)
	}
	if err := d.Abort(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "a.xml"))
	if err != nil || string(got) != "theirs" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestContentIsVerified(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "copy")
	d := open(t, dir)
	var bad *ContentError
	if err := d.Put("a", file("right", 0o644), strings.NewReader("wrong")); !errors.As(err, &bad) {
		t.Errorf("another content: %v", err)
	}
	if err := d.Put("a", file("right", 0o644), io.MultiReader(strings.NewReader("ri"), refusingReader{})); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("content that breaks off: %v", err)
	}
	put(t, d, "a", file("right", 0o644), "right") // nothing was left of them
	for p, e := range map[manifest.Path]manifest.Entry{"../out": file("x", 0o644), "l": link("../out"), ".gatesync/marker.json": file("x", 0o644)} {
		if err := d.Put(p, e, bytes.NewReader([]byte("x"))); err == nil {
			t.Errorf("%s was taken", p)
		}
	}
	if err := d.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory that was made is still there: %v", err)
	}
}

type refusingReader struct{}

func (refusingReader) Read([]byte) (int, error) { return 0, fs.ErrPermission }
