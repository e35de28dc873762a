package main

import (
	"fmt"
	"strings"
)

// level says how high each top-level directory stands; docs/design.md has the
// table with the reasons. A package below one of these directories stands with
// it, unless it has a row of its own.
var level = map[string]int{
	"manifest":             0,
	"cluster":              0,
	"integration/gen":      0,
	"integration/powercut": 0,
	"integration/leaks":    0,
	"integration/standing": 0,
	"integration/tunnel":   0,
	"proto":                1,
	"vfs":                  1,
	"config":               1,
	"records":              2,
	"blob":                 2,
	"sealed":               2,
	"checkout":             2,
	"delta":                2,
	"fallback/target":      4,
	"raftstore":            3,
	"transport":            3,
	"fallback":             3,
	"syncer":               3,
	"backup":               4,
	"doctor":               4,
	"web":                  4,
	"node/local":           4,
	"node":                 5,
	"cmd":                  6,
	"integration":          7,
}

// layerBreaches names each import that does not point strictly down. Packages
// of one family (below the same row) may import each other: Go itself forbids
// the cycles.
func layerBreaches(pkgs []pkg) (breaches []string) {
	for _, p := range pkgs {
		from, ok := family(p.ImportPath)
		if !ok {
			breaches = append(breaches, fmt.Sprintf("%s: has no level; give it a row in tools/lint/layers.go and in docs/design.md", p.ImportPath))
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module+"/") {
				continue
			}
			to, ok := family(imp)
			if ok && to != from && level[to] >= level[from] {
				breaches = append(breaches, fmt.Sprintf("%s (level %d) imports %s (level %d): imports point strictly down; declare a small interface where it is used",
					p.ImportPath, level[from], imp, level[to]))
			}
		}
	}
	return breaches
}

// family finds the row of the longest directory that holds a package.
func family(importPath string) (row string, ok bool) {
	rel, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return "", false
	}
	for {
		if _, ok := level[rel]; ok {
			return rel, true
		}
		i := strings.LastIndexByte(rel, '/')
		if i < 0 {
			return "", false
		}
		rel = rel[:i]
	}
}
