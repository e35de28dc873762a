package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var (
	namedTest   = regexp.MustCompile("`(Test[A-Za-z0-9_]+)`")
	definedTest = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
)

// guaranteeBreaches: docs/guarantees.md names the tests that hold the promises;
// each of them has to exist, and each test of a promise has to be named.
func guaranteeBreaches(dir string, pkgs []pkg) (breaches []string, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "docs", "guarantees.md"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defined, named := map[string]bool{}, map[string]bool{}
	for _, m := range namedTest.FindAllSubmatch(text, -1) {
		named[string(m[1])] = true
	}
	for _, p := range pkgs {
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			src, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return nil, err
			}
			for _, m := range definedTest.FindAllSubmatch(src, -1) {
				test := string(m[1])
				defined[test] = true
				if strings.HasPrefix(test, "TestPromise_") && !named[test] {
					breaches = append(breaches, fmt.Sprintf("docs/guarantees.md: %s in %s is not named there: say which promise it holds", test, name))
				}
			}
		}
	}
	for _, test := range slices.Sorted(maps.Keys(named)) {
		if !defined[test] {
			breaches = append(breaches, fmt.Sprintf("docs/guarantees.md: there is no test %s", test))
		}
	}
	return breaches, nil
}
