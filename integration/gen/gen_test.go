package gen

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTreeIsDeterministic(t *testing.T) {
	p := Params{Seed: 7, Configs: 50, Archives: 4, Archive: 200 << 10}
	var first []File
	for f := range Tree(p) {
		first = append(first, f)
	}
	i := 0
	for f := range Tree(p) {
		if f.Path != first[i].Path || !bytes.Equal(f.Data, first[i].Data) {
			t.Fatalf("file %d differs from run to run: %s, %s", i, first[i].Path, f.Path)
		}
		i++
	}
	if i != 54 {
		t.Fatalf("%d files, want 54", i)
	}
	other := Config(Params{Seed: 8, Configs: 50}, 0)
	if bytes.Equal(other.Data, first[0].Data) {
		t.Error("another seed gives the same content")
	}
}

func TestTreeHasDistinctPathsAndAskedSizes(t *testing.T) {
	p := Params{Seed: 1, Configs: 2000, MinConfig: 3000, MaxConfig: 6000, Archives: 3, Archive: 1 << 20}
	seen := map[string]bool{}
	for f := range Tree(p) {
		if seen[f.Path] {
			t.Errorf("%s appears twice", f.Path)
		}
		seen[f.Path] = true
		lo, hi := 3000, 6000+1200 // the last block may go over
		if strings.HasSuffix(f.Path, "ar") {
			lo, hi = 1<<20, 1<<20+100<<10
		}
		if len(f.Data) < lo-400 || len(f.Data) > hi {
			t.Errorf("%s has %d bytes, want %d to %d", f.Path, len(f.Data), lo, hi)
		}
	}
}

func TestFilesAreWhatTheyLookLike(t *testing.T) {
	for f := range Tree(Params{Seed: 3, Configs: 20, Archives: 2, Archive: 100 << 10}) {
		switch filepath.Ext(f.Path) {
		case ".xml":
			dec := xml.NewDecoder(bytes.NewReader(f.Data))
			for {
				if _, err := dec.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s: %v", f.Path, err)
				}
			}
		case ".car", ".war":
			z, err := zip.NewReader(bytes.NewReader(f.Data), int64(len(f.Data)))
			if err != nil || len(z.File) < 3 {
				t.Fatalf("%s: %v", f.Path, err)
			}
		}
	}
}

func TestEditChangesContentOnly(t *testing.T) {
	f := Config(Params{Configs: 1}, 0)
	e1, e2 := Edit(f, 1), Edit(f, 2)
	if bytes.Equal(e1.Data, f.Data) || bytes.Equal(e1.Data, e2.Data) || e1.Path != f.Path {
		t.Error("an edit must give other bytes at the same path")
	}
}

func TestWriteTo(t *testing.T) {
	dir := t.TempDir()
	n, size, err := WriteTo(dir, Tree(Params{Configs: 12, Archives: 1, Archive: 10 << 10}))
	if err != nil || n != 13 {
		t.Fatalf("%d files, %v", n, err)
	}
	var files int
	var bytes int64
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			info, _ := d.Info()
			files++
			bytes += info.Size()
		}
		return err
	})
	if err != nil || files != n || bytes != size {
		t.Errorf("on disk %d files of %d bytes (%v), said %d of %d", files, bytes, err, n, size)
	}
}
