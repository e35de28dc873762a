package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

var (
	namedTest   = regexp.MustCompile("`(Test[A-Za-z0-9_]+)`")
	definedTest = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
)

// guaranteeBreaches: docs/guarantees.md names tests that hold the promises;
// each of them has to exist.
func guaranteeBreaches(dir string, pkgs []pkg) (breaches []string, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "docs", "guarantees.md"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defined := map[string]bool{}
	for _, p := range pkgs {
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			src, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return nil, err
			}
			for _, m := range definedTest.FindAllSubmatch(src, -1) {
				defined[string(m[1])] = true
			}
		}
	}
	for _, m := range namedTest.FindAllSubmatch(text, -1) {
		if name := string(m[1]); !defined[name] {
			breaches = append(breaches, fmt.Sprintf("docs/guarantees.md: there is no test %s", name))
		}
	}
	return breaches, nil
}
