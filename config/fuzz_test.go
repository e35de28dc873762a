package config_test

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/gatesync/gatesync/config"
)

// FuzzLoad: no file makes Parse panic; settings that are accepted can be
// written down and read again.
func FuzzLoad(f *testing.F) {
	c := config.Default()
	c.Name, c.Trees = "gw1", []config.Tree{{Name: "server", Path: "/srv/t", Preset: "wso2", Ignore: []string{"*.tmp"}}}
	text, err := c.Text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	for _, s := range []string{
		"name: a\nlissten: x", "name: [", "a: &a [*a]", "guard: &a {max_delete: *a}", "trees: &a [*a]", "<<: {name: x}",
		"name: a\nfree_reserve: 1e300GB", "name: a\nhistory: {keep: 100000d9999999h}", "trees: [{name: x, path: /, mode_mask: 0o777}]",
		"name: a\nfree_reserve: NaN\nvoters: 99", "name: a\ntrees: [{name: x, path: \"/a\\u0000b\"}]", "--- a\n--- b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := config.Parse([]byte(text))
		if err != nil || c.Validate() != nil {
			return
		}
		if c.FreeReserve < 0 || c.Scan.Std() < time.Second || c.History.Keep < 0 || c.Voters < 1 || c.Voters > 7 {
			t.Fatalf("accepted: %+v", c)
		}
		written, err := c.Text()
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.Parse(written)
		if err != nil {
			t.Fatalf("cannot read what was written: %v\n%s", err, written)
		}
		same := func(what string, a, b any) {
			if !reflect.DeepEqual(a, b) {
				t.Errorf("%s %q comes back as %q", what, a, b)
			}
		}
		same("name", c.Name, again.Name)
		same("listen", c.Listen, again.Listen)
		same("advertise", c.Advertise, again.Advertise)
		same("http", c.HTTP, again.HTTP)
		same("guard", c.Guard.MaxDelete.Count, again.Guard.MaxDelete.Count)
		if len(c.Trees) != len(again.Trees) {
			t.Fatalf("%d trees come back as %d", len(c.Trees), len(again.Trees))
		}
		for i := range c.Trees {
			same("tree", c.Trees[i].Name, again.Trees[i].Name)
			same("path", c.Trees[i].Path, again.Trees[i].Path)
			if len(c.Trees[i].Ignore) > 0 {
				same("ignore", c.Trees[i].Ignore, again.Trees[i].Ignore)
			}
		}
	})
}

// FuzzParseTree: the flag's words come back as they are.
func FuzzParseTree(f *testing.F) {
	for _, s := range []string{"server=/opt/x", "server=/opt/x,preset=wso2,ignore=*.tmp,ignore=a=b", "=x", "a=", "a=/x,unknown=1", "a=b,,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tree, err := config.ParseTree(s)
		if err == nil && (tree.Name == "" || !filepath.IsAbs(tree.Path)) {
			t.Errorf("%q is %+v", s, tree)
		}
	})
}

// FuzzValues: durations and sizes that are accepted are not negative by
// overflow, and are printed as they can be read.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"90s", "30d", "1d12h", "100000d2540400h", "2510400h", "1d-5h", "-5s", "256MB", "64 KiB", "1e300", "NaN", "Inf", "9e18GB", "0x1p70", "1.5GB", "1048576TB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := config.ParseDuration(s); err == nil {
			if again, err := config.ParseDuration(d.String()); err != nil || again != d {
				t.Errorf("%q is %s, and that is %s, %v", s, d, again, err)
			}
		}
		if n, err := config.ParseSize(s); err == nil {
			if again, err := config.ParseSize(n.String()); n < 0 || err != nil || again != n {
				t.Errorf("%q is %d, and that is %d, %v", s, int64(n), int64(again), err)
			}
		}
	})
}
