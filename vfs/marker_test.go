package vfs

import (
	"os"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

// A marker's place stays with the directory wherever that is moved, and is
// another one for a copy.
func TestMarkerPlaceTellsACopy(t *testing.T) {
	at := func(dir string) Place {
		t.Helper()
		r, err := OpenRoot(dir, Options{})
		ok(t, err)
		defer func() { ok(t, r.Close()) }()
		p, err := r.MarkerPlace()
		ok(t, err)
		if p == (Place{}) {
			t.Fatal("nothing is known of the place")
		}
		return p
	}
	dir := t.TempDir() + "/tree"
	ok(t, os.MkdirAll(dir+"/"+manifest.MarkerDir, 0o755))
	first := at(dir)
	ok(t, os.WriteFile(dir+"/"+manifest.MarkerDir+"/marker.json", []byte("{}"), 0o644))
	ok(t, os.Rename(dir, dir+"2"))
	if moved := at(dir + "2"); moved.Copied(first) {
		t.Errorf("%+v moved is %+v", first, moved)
	}
	ok(t, os.CopyFS(dir, os.DirFS(dir+"2")))
	if copied := at(dir); !copied.Copied(first) {
		t.Errorf("a copy of %+v is %+v", first, copied)
	}
}

// What one side does not know is no evidence.
func TestPlaceCopied(t *testing.T) {
	for _, c := range []struct {
		a, b Place
		want bool
	}{
		{Place{}, Place{Ino: 1, Born: 2}, false},
		{Place{Ino: 1}, Place{Born: 2}, false},
		{Place{Ino: 1}, Place{Ino: 2}, true},
		{Place{Ino: 1, Born: 5}, Place{Ino: 2, Born: 5}, false}, // numbered anew at a mount
		{Place{Ino: 2, Born: 5}, Place{Ino: 2, Born: 6}, true},
		{Place{Ino: 1, Born: 5}, Place{Ino: 2}, true},
	} {
		if c.a.Copied(c.b) != c.want || c.b.Copied(c.a) != c.want {
			t.Errorf("%+v, %+v: not %v", c.a, c.b, c.want)
		}
	}
}
