package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParsePath(t *testing.T) {
	for _, good := range []string{"a", "a/b", "...", "a b", "\xff\xfe", "a/.gatesync", strings.Repeat("n", MaxName)} {
		if p, err := ParsePath(good); err != nil || string(p) != good {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/.", "a\x00b", ".gatesync", ".gatesync/x",
		strings.Repeat("n", MaxName+1), strings.Repeat("a/", MaxPath/2) + "aa",
	} {
		if _, err := ParsePath(bad); err == nil {
			t.Errorf("%q was taken for a path", bad)
		}
	}
}

// Compare is the order of the elements, and keeps what is below a directory
// directly behind it.
func TestCompareIsByElement(t *testing.T) {
	name := rapid.StringOfN(rapid.SampledFrom([]rune{'a', 'b', '.', '-', '~', ' '}), 1, 3, -1)
	path := rapid.Custom(func(t *rapid.T) Path {
		return Path(strings.Join(rapid.SliceOfN(name, 1, 4).Draw(t, "names"), "/"))
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := path.Draw(t, "a"), path.Draw(t, "b")
		want := slices.Compare(strings.Split(string(a), "/"), strings.Split(string(b), "/"))
		got := Compare(a, b)
		if (got < 0) != (want < 0) || (got > 0) != (want > 0) {
			t.Fatalf("Compare(%q, %q) = %d, by element %d", a, b, got, want)
		}
	})
}

// A manifest behaves like a map, its clones like copies.
func TestManifestAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, oracle := New(), map[Path]Node{}
		var clone *Manifest
		var frozen map[Path]Node
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			p := Path(rapid.SampledFrom([]string{"a", "a/b", "a.x", "a/b/c", "d", "d/e", "d-e"}).Draw(t, "path"))
			if rapid.Bool().Draw(t, "set") {
				n := at(file(fmt.Sprint(i)), Revision(i+1))
				m.Set(p, n)
				oracle[p] = n
			} else {
				m.Delete(p)
				delete(oracle, p)
			}
			if rapid.IntRange(0, 9).Draw(t, "clone") == 0 {
				clone, frozen = m.Clone(), maps.Clone(oracle)
			}
		}
		same(t, m, oracle)
		if clone != nil {
			same(t, clone, frozen)
		}
		seen := map[Path]bool{}
		m.Under("a", func(p Path, _ Node) bool { seen[p] = true; return true })
		for p := range oracle {
			if p.Under("a") != seen[p] {
				t.Fatalf("Under(a) has %q: %v", p, seen[p])
			}
		}
	})
}

func same(t *rapid.T, m *Manifest, want map[Path]Node) {
	if m.Len() != len(want) {
		t.Fatalf("%d entries, want %d", m.Len(), len(want))
	}
	last := Path("")
	m.All(func(p Path, n Node) bool {
		if n != want[p] {
			t.Fatalf("%q is %v, want %v", p, n, want[p])
		}
		if last != "" && Compare(last, p) >= 0 {
			t.Fatalf("%q stands before %q", last, p)
		}
		last = p
		return true
	})
}

func TestDiff(t *testing.T) {
	a, b := New(), New()
	a.Set("same", at(file("s"), 1))
	b.Set("same", at(file("s"), 1))
	a.Set("gone", at(file("g"), 1))
	b.Set("new", at(file("n"), 2))
	a.Set("changed", at(file("1"), 1))
	b.Set("changed", at(file("2"), 2))
	var got []string
	Diff(a, b, func(p Path, was, is Node) {
		got = append(got, fmt.Sprintf("%s %v>%v", p, was.Revision, is.Revision))
	})
	if want := []string{"changed 1>2", "gone 1>0", "new 0>2"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// The root digest tells trees apart exactly where an entry is not the Same.
func TestRootDigest(t *testing.T) {
	build := func(change func(*Manifest)) Digest {
		m := New()
		m.Set("d", at(Entry{Kind: Dir, Mode: 0o755}, 1))
		m.Set("d/e", at(Entry{Kind: Dir, Mode: 0o755}, 1))
		m.Set("d/e/f", at(file("f"), 1))
		m.Set("g", at(file("g"), 1))
		change(m)
		return m.RootDigest()
	}
	base := build(func(*Manifest) {})
	later := file("g")
	later.MTime = 12345
	if build(func(m *Manifest) { m.Set("g", at(later, 9)) }) != base {
		t.Error("mtime and revision are no part of the root digest")
	}
	exec := file("g")
	exec.Mode = 0o755
	seen := map[Digest]string{base: "base"}
	for name, change := range map[string]func(*Manifest){
		"content":   func(m *Manifest) { m.Set("g", at(file("h"), 1)) },
		"mode":      func(m *Manifest) { m.Set("g", at(exec, 1)) },
		"name":      func(m *Manifest) { m.Delete("g"); m.Set("h", at(file("g"), 1)) },
		"moved up":  func(m *Manifest) { m.Delete("d/e/f"); m.Set("d/f", at(file("f"), 1)) },
		"empty dir": func(m *Manifest) { m.Set("z", at(Entry{Kind: Dir, Mode: 0o755}, 1)) },
		"dir mode":  func(m *Manifest) { m.Set("d/e", at(Entry{Kind: Dir, Mode: 0o700}, 1)) },
		"deletion":  func(m *Manifest) { m.Delete("g") },
	} {
		d := build(change)
		if other, dup := seen[d]; dup {
			t.Errorf("%s and %s have one root digest", name, other)
		}
		seen[d] = name
	}
}

func TestIgnore(t *testing.T) {
	ig, err := NewIgnore("wso2", []string{"/local/", "**/*.log", "conf/secret?.xml"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[Path]bool{
		".gatesync": true, ".gatesync/marker.json": true,
		"api.xml": false, "api.xml.back": true, "synapse-configs/default/api/x.xml": false,
		"synapse-configs/default/api/x.xml.back": true, "~lock": true, "webapps/am.war": true,
		"a/webapps/am.war": false, "a/.svn/entries": true, ".svn": false, // a file of that name
		"local/x": true, "a/local/x": false, "a/b/c.log": true, "conf/secret1.xml": true, "x/conf/secret1.xml": false,
	} {
		if got := ig.Match(path, false); got != want {
			t.Errorf("Match(%q) = %v", path, got)
		}
	}
	if !ig.Match(".svn", true) {
		t.Error("a .svn directory is ignored")
	}
	for path, want := range map[Path]bool{
		"a/.nfs000000000000806600000026": true, ".nfs00000000000080660000002": false, ".nfsx00000000000806600000026": false, ".nfs": false,
	} {
		if got := (*Ignore)(nil).Match(path, false); got != want {
			t.Errorf("without patterns: Match(%q) = %v", path, got)
		}
	}
	for _, bad := range []string{"[", "", "/"} {
		if _, err := NewIgnore("plain", []string{bad}); err == nil {
			t.Errorf("the glob %q was accepted", bad)
		}
	}
	if _, err := NewIgnore("nonsense", nil); err == nil {
		t.Error("an unknown preset was accepted")
	}
}

func TestPromise_NoSurpriseDelete_MassDeletion(t *testing.T) {
	limit := DefaultDeleteLimit()
	for _, c := range []struct {
		d    Deletions
		want bool
	}{
		{Deletions{Pending: 0, Present: 0}, false},
		{Deletions{Pending: 1, Present: 1}, true},    // left empty
		{Deletions{Pending: 15, Present: 15}, true},  // left empty, though few
		{Deletions{Pending: 14, Present: 15}, false}, // few
		{Deletions{Pending: 20, Present: 40}, false},
		{Deletions{Pending: 21, Present: 40}, true},
		{Deletions{Pending: 21, Present: 1000}, false},
		{Deletions{Pending: 5, Recent: 20, Present: 30}, true}, // in slices
		{Deletions{Pending: 301, Present: 1000}, true},
	} {
		if got := MassDeletion(limit, c.d); got != c.want {
			t.Errorf("%+v: %v", c.d, got)
		}
	}
}
