package vfs

import (
	"os"
	"testing"
)

func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/a.json"
	for content, mode := range map[string]os.FileMode{"old": 0o644, "new": 0o600} {
		ok(t, ReplaceFile(file, []byte(content), mode))
		got, err := os.ReadFile(file)
		ok(t, err)
		info, err := os.Stat(file)
		ok(t, err)
		if string(got) != content || info.Mode() != mode {
			t.Errorf("%q %v, want %q %v", got, info.Mode(), content, mode)
		}
	}
	if err := ReplaceFile(dir+"/none/a", nil, 0o600); err == nil {
		t.Error("a file in no directory")
	}
	ok(t, os.Mkdir(dir+"/taken", 0o755))
	if err := ReplaceFile(dir+"/taken", nil, 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	names, err := os.ReadDir(dir)
	ok(t, err)
	if len(names) != 2 {
		t.Errorf("left behind: %v", names)
	}
}
