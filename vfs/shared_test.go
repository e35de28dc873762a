package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNotes(t *testing.T) {
	r, err := OpenRoot(t.TempDir(), Options{Node: "n-1"})
	ok(t, err)
	defer r.Close()
	if list, err := r.ListNotes("nonce-"); err != nil || len(list) != 0 {
		t.Fatalf("notes of an empty root: %v, %v", list, err)
	}
	if _, err := r.ReadNote("nonce-n-1"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a note that is not there: %v", err)
	}
	ok(t, r.WriteMarker([]byte("{}")))
	ok(t, r.WriteNote("nonce-n-2", []byte("b")))
	ok(t, r.WriteNote("nonce-n-1", []byte("a")))
	ok(t, r.WriteNote("nonce-n-1", []byte("c")))
	if list, err := r.ListNotes("nonce-"); err != nil || !slices.Equal(list, []string{"nonce-n-1", "nonce-n-2"}) {
		t.Errorf("notes: %v, %v", list, err)
	}
	if b, err := r.ReadNote("nonce-n-1"); err != nil || string(b) != "c" {
		t.Errorf("note: %q, %v", b, err)
	}
	for _, name := range []string{"", "..", "a/b"} {
		if err := r.WriteNote(name, nil); !errors.Is(err, ErrName) {
			t.Errorf("note %q: %v", name, err)
		}
	}
	if b, err := r.ReadMarker(); err != nil || string(b) != "{}" {
		t.Errorf("marker: %q, %v", b, err)
	}
}

// Two nodes that have one root do not see each other's staging directory: what
// one has staged is no leftover to the other.
func TestStagingIsEachNodesOwn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	ok(t, os.Mkdir(dir, 0o755))
	a, err := OpenRoot(dir, Options{Node: "n-a"})
	ok(t, err)
	defer a.Close()
	b, err := OpenRoot(dir, Options{Node: "n-b"})
	ok(t, err)
	defer b.Close()
	w, err := a.Create("x", 0o644)
	ok(t, err)
	ok(t, w.Close())
	if list, err := b.ListStaged(); err != nil || len(list) != 0 {
		t.Fatalf("b sees %v, %v", list, err)
	}
	if list, err := a.ListStaged(); err != nil || !slices.Equal(list, []string{"x"}) {
		t.Fatalf("a sees %v, %v", list, err)
	}
	ok(t, a.Place("x", "x"))
}

// A nudge is heard by those who wait for a close after writing and by those who
// wait for attributes, and changes neither content nor mtime.
func TestNudgeIsHeard(t *testing.T) {
	dir := t.TempDir()
	r, err := OpenRoot(dir, Options{})
	ok(t, err)
	defer r.Close()
	ok(t, os.WriteFile(filepath.Join(dir, "f"), []byte("text"), 0o640))
	before, err := r.Lstat("f")
	ok(t, err)
	in, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	ok(t, err)
	defer unix.Close(in)
	_, err = unix.InotifyAddWatch(in, dir, unix.IN_CLOSE_WRITE|unix.IN_ATTRIB|unix.IN_MODIFY)
	ok(t, err)
	ok(t, r.Nudge("f"))
	buf := make([]byte, 4096)
	n, err := unix.Read(in, buf)
	ok(t, err)
	var seen uint32
	for off := 0; off < n; {
		ev := buf[off:]
		seen |= uint32(ev[4]) | uint32(ev[5])<<8 | uint32(ev[6])<<16 | uint32(ev[7])<<24
		off += unix.SizeofInotifyEvent + int(uint32(ev[12])|uint32(ev[13])<<8)
	}
	if seen != unix.IN_CLOSE_WRITE|unix.IN_ATTRIB {
		t.Errorf("events %#x", seen)
	}
	after, err := r.Lstat("f")
	ok(t, err)
	if after.MTime != before.MTime || after.Mode != before.Mode || after.Size != before.Size {
		t.Errorf("%+v became %+v", before, after)
	}
	if err := r.Nudge("."); err == nil {
		t.Error("a directory was nudged")
	}
	f, err := r.OpenFresh("f")
	ok(t, err)
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
	ok(t, r.Refresh(""))
}
