package manifest

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// MaxName is the longest name of one path element, in bytes, that the
	// file systems in use can hold.
	MaxName = 255
	// MaxPath bounds a whole path, in bytes: Linux's PATH_MAX less room for
	// the root's own path.
	MaxPath = 3072
	// MaxDepth bounds the elements of a path: far more than any gateway nests,
	// and few enough that walking up from every path costs nothing.
	MaxDepth = 256
)

// MarkerDir is the directory at a tree's root that belongs to gatesync: it is
// never replicated.
const MarkerDir = ".gatesync"

// Path names something below a tree's root: slash-separated, relative, raw
// bytes (not necessarily UTF-8), no empty element, no "." or "..", no NUL.
// Paths order bytewise over their elements (see Compare).
type Path string

// PathError tells why a string is not a Path.
type PathError struct {
	Path   string
	Reason string
}

func (e *PathError) Error() string { return fmt.Sprintf("path %q: %s", e.Path, e.Reason) }

// ParsePath validates s. Everything that comes from a peer, a log or a person
// goes through here before it is used.
func ParsePath(s string) (Path, error) {
	bad := func(why string) (Path, error) { return "", &PathError{Path: s, Reason: why} }
	switch {
	case s == "":
		return bad("is empty")
	case len(s) > MaxPath:
		return bad(fmt.Sprintf("is %d bytes long, the limit is %d", len(s), MaxPath))
	case s[0] == '/':
		return bad("is absolute")
	case strings.IndexByte(s, 0) >= 0:
		return bad("contains a NUL byte")
	}
	for rest, depth := s, 1; ; depth++ {
		name, tail, more := strings.Cut(rest, "/")
		switch {
		case name == "":
			return bad("has an empty element")
		case name == "." || name == "..":
			return bad("has a " + name + " element")
		case depth > MaxDepth:
			return bad(fmt.Sprintf("is more than %d directories deep", MaxDepth))
		case len(name) > MaxName:
			return bad(fmt.Sprintf("has a name of %d bytes, the limit is %d", len(name), MaxName))
		}
		if !more {
			break
		}
		rest = tail
	}
	p := Path(s)
	if p == MarkerDir || p.Under(MarkerDir) {
		return bad("belongs to gatesync")
	}
	return p, nil
}

// Unfit is why no tree can hold p, "" where one can. It is for who reads a
// directory, in which any name may stand.
func (p Path) Unfit() (why string) {
	_, err := ParsePath(string(p))
	if bad := (*PathError)(nil); errors.As(err, &bad) {
		return "its path " + bad.Reason
	}
	return ""
}

// Dir returns the parent, "" for a path at the top.
func (p Path) Dir() Path {
	if i := strings.LastIndexByte(string(p), '/'); i >= 0 {
		return p[:i]
	}
	return ""
}

// Base returns the last element.
func (p Path) Base() string {
	return string(p[strings.LastIndexByte(string(p), '/')+1:])
}

// Join appends a name; the empty path is the root.
func (p Path) Join(name string) Path {
	if p == "" {
		return Path(name)
	}
	return p + "/" + Path(name)
}

// Under tells whether p lies strictly below dir. Everything lies below "".
func (p Path) Under(dir Path) bool {
	if dir == "" {
		return p != ""
	}
	return len(p) > len(dir)+1 && p[len(dir)] == '/' && p[:len(dir)] == dir
}

// Depth counts the elements; the root has none.
func (p Path) Depth() int {
	if p == "" {
		return 0
	}
	return strings.Count(string(p), "/") + 1
}

// Compare orders paths element by element, so that everything below a
// directory stands directly behind it ("a", "a/b", "a.x").
func Compare(a, b Path) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' {
			return -1
		}
		if b[i] == '/' {
			return 1
		}
		if a[i] < b[i] {
			return -1
		}
		return 1
	}
	return len(a) - len(b)
}
