package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// maxLines is how long a file may be before it is two files.
const maxLines = 500

var (
	generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	ends      = regexp.MustCompile(`(?m)^[^/\n]*\b(os\.Exit|log\.Fatal\w*)\(`)
	inits     = regexp.MustCompile(`(?m)^func init\(\)`)
)

// fileBreaches reads every file of every package. Generated code is exempt;
// test files are only held to the length.
func fileBreaches(pkgs []pkg) (breaches []string, err error) {
	for _, p := range pkgs {
		say := func(file, what string) {
			breaches = append(breaches, fmt.Sprintf("%s/%s: %s", p.ImportPath, file, what))
		}
		handwritten := false
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			src, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return nil, err
			}
			if generated.Match(src) {
				continue
			}
			handwritten = true
			if n := bytes.Count(src, []byte("\n")); n > maxLines {
				say(name, fmt.Sprintf("has %d lines, the limit is %d: split it by what it does", n, maxLines))
			}
			if !slices.Contains(p.GoFiles, name) {
				continue
			}
			if p.Name != "main" && ends.Match(src) {
				say(name, "ends the process: return an error instead")
			}
			if inits.Match(src) {
				say(name, "has an init function: wire it where it is used")
			}
		}
		alone := p.Name == "main" && slices.Equal(p.GoFiles, []string{"main.go"}) // a program of one file says it there
		if handwritten && !alone && !slices.Contains(p.GoFiles, "doc.go") {
			say("doc.go", "is missing: say what the package promises and who calls it")
		}
	}
	return breaches, nil
}
