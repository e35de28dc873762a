package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// module is the import path that all packages of the product begin with.
const module = "github.com/gatesync/gatesync"

// pkg is what `go list -json` says about one package, as far as the rules ask.
type pkg struct {
	ImportPath   string
	Name         string
	Dir          string
	Imports      []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: lint DIR   (the root of the product's module)")
		os.Exit(2)
	}
	breaches, err := lint(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(2)
	}
	for _, b := range breaches {
		fmt.Println(b)
	}
	if len(breaches) > 0 {
		os.Exit(1)
	}
}

// lint applies every rule to the module that lives in dir.
func lint(dir string) (breaches []string, err error) {
	pkgs, err := list(dir)
	if err != nil {
		return nil, err
	}
	breaches = layerBreaches(pkgs)
	files, err := fileBreaches(pkgs)
	if err != nil {
		return nil, err
	}
	guarantees, err := guaranteeBreaches(dir, pkgs)
	return append(append(breaches, files...), guarantees...), err
}

// list asks the go command for all packages below dir.
func list(dir string) ([]pkg, error) {
	cmd := exec.Command("go", "list", "-tags", "hashicorpmetrics", "-json=ImportPath,Name,Dir,Imports,GoFiles,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}
