package node

import (
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

func TestFormersKnowWhatAPathHasHeld(t *testing.T) {
	content := func(s string) manifest.Entry {
		return manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: int64(len(s)), Digest: manifest.DigestOf([]byte(s))}
	}
	link := func(to string) manifest.Entry {
		return manifest.Entry{Kind: manifest.Symlink, Mode: 0o777, Size: int64(len(to)), Digest: manifest.DigestOf([]byte(to)), Target: to}
	}
	commit := func(r manifest.Revision, p string, old, now manifest.Entry) manifest.Commit {
		return manifest.Commit{Revision: r, Changes: []manifest.Committed{{Path: manifest.Path(p), Old: manifest.Node{Entry: old}, New: now}}}
	}
	f := newFormers()
	f.add([]manifest.Commit{commit(3, "a", content("trimmed"), content("1")), commit(4, "a", content("1"), manifest.Entry{})}, 4)
	f.add([]manifest.Commit{commit(7, "c", content("3"), link("a")), commit(8, "d", manifest.Entry{}, manifest.Entry{Kind: manifest.Dir, Mode: 0o755})}, 9)
	if f.upTo != 9 {
		t.Errorf("told up to %d", f.upTo)
	}
	other := content("1")
	other.Mode = 0o600
	for _, c := range []struct {
		path string
		e    manifest.Entry
		want bool
	}{
		{"a", content("trimmed"), true}, {"a", content("1"), true}, {"a", other, true}, {"c", content("3"), true},
		{"b", content("1"), false}, {"a", content("2"), false}, {"a", link("1"), false}, {"c", content("a"), false}, {"c", link("a"), true}, {"c", link("b"), false}, {"d", manifest.Entry{Kind: manifest.Dir, Mode: 0o755}, false}, {"a", manifest.Entry{}, false},
	} {
		if f.has(manifest.Path(c.path), c.e) != c.want {
			t.Errorf("%s %v: not %v", c.path, c.e, c.want)
		}
	}
}
