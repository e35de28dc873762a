package manifest

import (
	"path"
	"strings"
	"testing"
)

// FuzzParsePath: what is accepted is the one spelling of a name below the root.
func FuzzParsePath(f *testing.F) {
	for _, s := range []string{
		"a", "a/b.xml", "..", "a/../b", "/etc/passwd", "a//b", "a/", "./a", "nul\x00", ".gatesync", ".gatesync/x", ".gatesyncx",
		strings.Repeat("x", MaxName+1), strings.Repeat("d/", 10_000) + "f", "\xff\xfe",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			if p != "" {
				t.Errorf("refused, and yet %q", p)
			}
			return
		}
		switch {
		case string(p) != s, path.Clean(s) != s, path.IsAbs(s), s == "." || s == "..", strings.HasPrefix(s, "../"):
			t.Errorf("%q is not the one spelling of a path below the root", s)
		case strings.ContainsRune(s, 0), len(s) > MaxPath, p.Depth() > MaxDepth, s == MarkerDir, strings.HasPrefix(s, MarkerDir+"/"):
			t.Errorf("%q was accepted", s)
		case p.Depth() > 1 && p.Dir().Join(p.Base()) != p, p.Depth() == 1 && (p.Dir() != "" || p.Base() != s):
			t.Errorf("%q is %q and %q", s, p.Dir(), p.Base())
		case Compare(p, p) != 0, p.Dir() != "" && (!p.Under(p.Dir()) || Compare(p.Dir(), p) >= 0):
			t.Errorf("%q does not stand behind its directory", s)
		}
	})
}

// FuzzCheckLink: a link that is accepted leads to the root or to a path in it.
func FuzzCheckLink(f *testing.F) {
	for _, target := range []string{"x", "..", "../x", "./../x", "a/..", "/etc", "", "../.gatesync/marker.json", "x\x00", "//x", "./"} {
		f.Add("d/l", target)
	}
	f.Fuzz(func(t *testing.T, at, target string) {
		p, err := ParsePath(at)
		if err != nil || CheckLink(p, target) != nil {
			return
		}
		dest := path.Join("/root", string(p.Dir()), target)
		inside, ok := strings.CutPrefix(dest, "/root/")
		if dest == "/root" {
			return
		}
		if !ok || path.IsAbs(target) {
			t.Fatalf("%q -> %q leads to %q", p, target, dest)
		}
		if _, err := ParsePath(inside); err != nil {
			t.Errorf("%q -> %q: %v", p, target, err)
		}
	})
}

// FuzzDigest: a digest has one spelling, but for the case of its letters.
func FuzzDigest(f *testing.F) {
	f.Add(DigestOf(nil).String())
	f.Add("zz")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err != nil {
			return
		}
		if d.String() != strings.ToLower(s) {
			t.Errorf("%q reads as %s", s, d)
		}
		if again, err := DigestFromBytes(d[:]); err != nil || again != d {
			t.Errorf("%s: %v", d, err)
		}
	})
}

// FuzzIgnore: globs that are accepted can be matched, and what lies in an
// ignored directory is ignored.
func FuzzIgnore(f *testing.F) {
	for _, g := range []string{"*.tmp", "/webapps/", "a/**/b", "[a-z]*", "{a,b}*.xml", "**", "[", "\\", "a/b/", "!x", "#x"} {
		f.Add("wso2", g, "a/b/c.xml")
	}
	f.Fuzz(func(t *testing.T, preset, glob, s string) {
		ig, err := NewIgnore(preset, []string{glob})
		p, perr := ParsePath(s)
		if err != nil || perr != nil {
			return
		}
		for dir := p.Dir(); dir != ""; dir = dir.Dir() {
			if ig.Match(dir, true) && !ig.Match(p, false) {
				t.Errorf("%q ignores %q, not %q", glob, dir, p)
			}
		}
		if !ig.Match(MarkerDir, true) || !ig.Match(MarkerDir+"/x", false) {
			t.Error("the marker is not ignored")
		}
	})
}
