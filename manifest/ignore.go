package manifest

import (
	"fmt"
	"sort"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Ignore tells which paths of a tree are nobody's business: neither spread,
// nor deleted, nor counted. Immutable; safe for concurrent use.
//
// Patterns are globs in the manner of .gitignore: without a slash they match a
// name at any depth, with one they match from the root; a trailing slash
// matches directories only; "**" spans directories. What lies below an ignored
// directory is ignored with it. What gatesync and NFS clients keep beside the
// gateway's files (.gatesync, SillyRenamed) is ignored whatever the patterns.
type Ignore struct{ rules []ignoreRule }

type ignoreRule struct {
	glob    string
	rooted  bool
	dirOnly bool
}

// presets name the globs that a kind of gateway asks for, with the reason.
func presets() map[string][]string {
	return map[string][]string{
		"plain": nil,
		// What Carbon and Synapse make for themselves: deployer back-ups (a
		// refused artifact is renamed to .back), locks and work folders; webapps
		// and jaggeryapps are shipped with the product and deleted on some nodes
		// by its profile script.
		"wso2": {
			"*.back", "*.bk", "~*", "*~", ".svn/", ".nfs*", "*.swp", "*.swx",
			"/webapps/", "/jaggeryapps/", "/repository/database/",
		},
	}
}

// Presets lists the known presets by name.
func Presets() []string {
	var names []string
	for n := range presets() {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// NewIgnore compiles a preset's globs ("" is "plain") and further ones.
func NewIgnore(preset string, globs []string) (*Ignore, error) {
	if preset == "" {
		preset = "plain"
	}
	base, ok := presets()[preset]
	if !ok {
		return nil, fmt.Errorf("unknown preset %q: use one of %s", preset, strings.Join(Presets(), ", "))
	}
	ig := &Ignore{}
	for _, g := range append(append([]string{}, base...), globs...) {
		r := ignoreRule{glob: g}
		if strings.HasSuffix(r.glob, "/") {
			r.glob, r.dirOnly = strings.TrimSuffix(r.glob, "/"), true
		}
		r.rooted = strings.Contains(r.glob, "/")
		r.glob = strings.TrimPrefix(r.glob, "/")
		if r.glob == "" || !doublestar.ValidatePattern(r.glob) {
			return nil, fmt.Errorf("ignore glob %q is not well formed", g)
		}
		ig.rules = append(ig.rules, r)
	}
	return ig, nil
}

// Match tells whether p (a directory or not) or a directory above it is
// ignored. A nil Ignore matches nothing.
func (ig *Ignore) Match(p Path, isDir bool) bool {
	if p == MarkerDir || p.Under(MarkerDir) || SillyRenamed(p) {
		return true
	}
	if ig == nil || len(ig.rules) == 0 {
		return false
	}
	for i := 0; i < len(p); i++ {
		if p[i] == '/' && ig.matchOne(p[:i], true) {
			return true
		}
	}
	return ig.matchOne(p, isDir)
}

// SillyRenamed tells whether an NFS client made the name, in place of a file that
// was removed or replaced while somebody on its machine had it open: ".nfs", the
// inode and a counter in hexadecimal. It goes with the last close, and no event
// tells.
func SillyRenamed(p Path) bool {
	digits, ok := strings.CutPrefix(p.Base(), ".nfs")
	return ok && len(digits) == 24 && strings.Trim(digits, "0123456789abcdef") == ""
}

func (ig *Ignore) matchOne(p Path, isDir bool) bool {
	for _, r := range ig.rules {
		if r.dirOnly && !isDir {
			continue
		}
		name := p.Base()
		if r.rooted {
			name = string(p)
		}
		if ok, _ := doublestar.Match(r.glob, name); ok { // validated by NewIgnore
			return true
		}
	}
	return false
}
