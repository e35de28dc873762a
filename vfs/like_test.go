package vfs

import (
	"os"
	"slices"
	"testing"
)

func TestLike(t *testing.T) {
	dir := t.TempDir() + "/gw[1]"
	none, err := Like(dir, "*")
	if ok(t, err); len(none) > 0 {
		t.Error("in no directory there is", none)
	}
	ok(t, os.Mkdir(dir, 0o755))
	for _, name := range []string{"a.db", "a.db.damaged-1", "a.db.damaged-2", "b"} {
		ok(t, os.WriteFile(dir+"/"+name, nil, 0o644))
	}
	got, err := Like(dir, "a.db.damaged-*")
	if ok(t, err); !slices.Equal(got, []string{dir + "/a.db.damaged-1", dir + "/a.db.damaged-2"}) {
		t.Errorf("found %q", got)
	}
	if _, err := Like(dir, "["); err == nil {
		t.Error("a malformed pattern fits something")
	}
}
