package config

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// ParseTree reads the --tree flag: NAME=PATH[,preset=P][,ignore=GLOB]…[,storage=S][,write=W][,edits=E][,nudge=true]. A
// relative path is taken from the working directory, like every path that is
// typed into a shell.
func ParseTree(s string) (Tree, error) {
	parts := strings.Split(s, ",")
	name, path, ok := strings.Cut(parts[0], "=")
	if !ok || name == "" || path == "" {
		return Tree{}, fmt.Errorf("--tree %q: write NAME=PATH, for example server=/opt/gateway/conf,preset=plain", s)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return Tree{}, fmt.Errorf("--tree %q: %w", s, err)
	}
	t := Tree{Name: name, Path: abs}
	for _, opt := range parts[1:] {
		k, v, _ := strings.Cut(opt, "=")
		switch k {
		case "preset":
			t.Preset = v
		case "ignore":
			t.Ignore = append(t.Ignore, v)
		case "storage":
			t.Storage = v
		case "write":
			t.Write = v
		case "edits":
			t.Edits = v
		case "nudge":
			if t.Nudge, err = strconv.ParseBool(v); err != nil {
				return Tree{}, fmt.Errorf("--tree %q: nudge=%q is neither true nor false", s, v)
			}
		default:
			known := []string{"preset", "ignore", "storage", "write", "edits", "nudge"}
			e := &UnknownKeyError{Key: k, Nearest: nearest(k, known, "")}
			return Tree{}, fmt.Errorf("--tree %q: %w", s, e)
		}
	}
	return t, nil
}
