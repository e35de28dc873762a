package powercut

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCutKeepsWhatWasFlushedAndNothingElse(t *testing.T) {
	d := New(t)
	write := func(name string, flush bool) {
		f, err := os.Create(filepath.Join(d.Path, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(name); err != nil {
			t.Fatal(err)
		}
		if flush {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(d.Path, name))
		if err != nil {
			return "(gone)"
		}
		return string(b)
	}
	write("lost", false)
	write("flushed", true) // takes the name of the first along, not its content
	write("unnamed", false)
	if err := d.Snapshot(); err != nil {
		t.Fatal(err)
	}
	write("later", true)
	d.Cut()
	for name, want := range map[string]string{"lost": "", "flushed": "flushed", "unnamed": "(gone)", "later": "(gone)"} {
		if got := read(name); got != want {
			t.Errorf("%s holds %q after the cut, want %q", name, got, want)
		}
	}
}
