package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/gatesync/gatesync/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(config.Path(dir), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestUnknownKeyNamesLineAndNearest(t *testing.T) {
	for text, want := range map[string]string{
		"name: a\nlissten: x":                                  `line 2: unknown key "lissten"; did you mean "listen"?`,
		"name: a\nguard:\n  max_delet:\n    count: 1":          `line 3: unknown key "guard.max_delet"; did you mean "guard.max_delete"?`,
		"name: a\nguard:\n  max_delete: {coutn: 1}":            `line 3: unknown key "guard.max_delete.coutn"; did you mean "guard.max_delete.count"?`,
		"name: a\ntrees:\n- name: x\n  path: /x\n  prest: y":   `line 5: unknown key "trees.prest"; did you mean "trees.preset"?`,
		"name: a\nmax_lag: 3s":                                 `line 2: unknown key "max_lag"; did you mean "ready.max_lag"?`,
		"name: a\nsomething_entirely_different_and_unheard: 1": `line 2: unknown key "something_entirely_different_and_unheard"`,
	} {
		_, err := config.Load(write(t, text), config.Source{})
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q: error %v, want …%s", text, err, want)
		}
		var unknown *config.UnknownKeyError
		if !errors.As(err, &unknown) {
			t.Errorf("%q: %T is no UnknownKeyError", text, err)
		}
	}
}

func TestOrderOfSources(t *testing.T) {
	dir := write(t, "name: gw1\nready: {max_lag: 10s}\nguard: {max_delete: {count: 7}}\nlog: {level: warn}\n")
	cfg, err := config.Load(dir, config.Source{
		Environ: []string{"GATESYNC_GUARD_MAX_DELETE_COUNT=8", "GATESYNC_LOG_LEVEL=error", "GATESYNC_SEEDS=a:1,b:2", "GATESYNC_PORT=tcp://invented"},
		Flags:   map[string]string{"log.level": "debug"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Guard.MaxDelete.Percent != 30 { // default
		t.Errorf("percent %d", cfg.Guard.MaxDelete.Percent)
	}
	if cfg.Ready.MaxLag.Std() != 10*time.Second { // file
		t.Errorf("max_lag %s", cfg.Ready.MaxLag)
	}
	if cfg.Guard.MaxDelete.Count != 8 || len(cfg.Seeds) != 2 || cfg.Seeds[1] != "b:2" { // environment
		t.Errorf("count %d, seeds %q", cfg.Guard.MaxDelete.Count, cfg.Seeds)
	}
	if cfg.Log.Level != "debug" { // flag
		t.Errorf("level %s", cfg.Log.Level)
	}
}

func TestAFlagIsNamedAsItIsTyped(t *testing.T) {
	_, err := config.Load(write(t, "name: a"), config.Source{Flags: map[string]string{"scan_interval": "soon"}})
	var wrong *config.FlagError
	if !errors.As(err, &wrong) || wrong.Flag != "scan-interval" || !strings.Contains(err.Error(), `--scan-interval: "soon" is no duration`) {
		t.Errorf("error %v", err)
	}
}

func TestValidateNamesKeyAndReason(t *testing.T) {
	for text, want := range map[string]string{
		"name: ''":                             "name:",
		"name: a\nlisten: here":                `listen: "here" is no HOST:PORT`,
		"name: a\nadvertise: 0.0.0.0:1":        "cannot be dialled",
		"name: a\nvoters: 4":                   "not one of 1, 3, 5, 7",
		"name: a\nreap_after: 1s":              "less than five seconds",
		"name: a\ntrees: [{name: t, path: /}]": "whole file system",
		"name: a\ntrees: [{name: t, path: /a}, {name: u, path: /a/b}]": "lie in one another",
		"name: a\ntrees: [{name: t, path: .}]":                         "data directory",
		"name: a\nshare: /":                                            "share: \"/\" is the whole file system",
		"name: a\nshare: x":                                            "data directory",
		"name: a\nshare: /m/x\ntrees: [{name: t, path: /m}]":           "name a directory of its own on the mount",
		"name: a\ntls: {ca: x}":                                        "needs all three",
		"name: a\nscan_interval: soon":                                 "line 2: \"soon\" is no duration",
		"name: a\nfree_reserve: much":                                  "line 2: \"much\" is no size",
	} {
		_, err := config.Load(write(t, text), config.Source{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want it to contain %q", text, err, want)
		}
	}
	var none *config.NoNodeError
	if _, err := config.Load(t.TempDir(), config.Source{}); !errors.As(err, &none) {
		t.Errorf("no file: %v", err)
	}
}

func TestWrittenFileReadsBackTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "config")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		c := config.Default()
		c.DataDir = dir
		c.Name = rapid.StringMatching(`[a-z][a-z0-9.-]{0,20}|true|1e3|null`).Draw(rt, "name")
		c.Seeds = rapid.SliceOfN(rapid.SampledFrom([]string{"a:1", "[::1]:7"}), 0, 2).Draw(rt, "seeds")
		c.Trees = []config.Tree{{
			Name: "server", Path: filepath.Join("/srv", rapid.StringMatching(`[ -~é]{1,12}`).Filter(func(s string) bool {
				return filepath.Clean("/srv/"+s) == "/srv/"+s
			}).Draw(rt, "path")),
			Ignore: rapid.SliceOfN(rapid.StringMatching(`[*?a-z#: '"]{1,8}`), 0, 3).Draw(rt, "ignore"),
		}}
		if err := c.Write(); err != nil {
			rt.Fatal(err)
		}
		back, err := config.Load(dir, config.Source{})
		if err != nil {
			text, _ := c.Text()
			rt.Fatalf("%v in\n%s", err, text)
		}
		if back.Name != c.Name || back.Trees[0].Path != c.Trees[0].Path || strings.Join(back.Trees[0].Ignore, "\n") != strings.Join(c.Trees[0].Ignore, "\n") ||
			strings.Join(back.Seeds, " ") != strings.Join(c.Seeds, " ") || back.Scan != c.Scan || back.History != c.History || back.FreeReserve != c.FreeReserve {
			rt.Fatalf("wrote %+v, read %+v", c, back)
		}
	})
	c := config.Default()
	c.DataDir = write(t, "name: mine")
	if err := c.Write(); !errors.Is(err, os.ErrExist) {
		t.Errorf("overwrote a person's file: %v", err)
	}
}

func TestParseTree(t *testing.T) {
	tree, err := config.ParseTree("server=/opt/x,preset=wso2,ignore=*.tmp")
	if err != nil || tree.Name != "server" || tree.Path != "/opt/x" || tree.Preset != "wso2" || len(tree.Ignore) != 1 {
		t.Errorf("%+v %v", tree, err)
	}
	for _, s := range []string{"", "x", "=/a", "a=", "a=/b,prset=x"} {
		if _, err := config.ParseTree(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestValuesReadBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := config.Duration(rapid.Int64Range(0, 1e6).Draw(rt, "s") * int64(time.Second))
		if back, err := config.ParseDuration(d.String()); err != nil || back != d {
			rt.Fatalf("%s → %v %v", d, back, err)
		}
		s := config.Size(rapid.Int64Range(0, 1<<40).Draw(rt, "b"))
		if back, err := config.ParseSize(s.String()); err != nil || back != s {
			rt.Fatalf("%s → %v %v", s, back, err)
		}
	})
}
