package target_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/fallback/target"
	"github.com/gatesync/gatesync/manifest"
)

func noise(seed uint64, n int) string {
	rnd := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return string(b)
}

func someFiles(n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("d%d/f%d.xml", i%7, i)] = fmt.Sprintf("<api name='%d'>%s</api>", i, strings.Repeat("<log/>", i%50))
	}
	return files
}

func TestPush(t *testing.T) {
	b := newBed(t)
	write(t, b.src, someFiles(100))
	write(t, b.src, map[string]string{"big": noise(1, 3<<20), "script": "#!/bin/sh", "empty/x": "1"})
	for _, err := range []error{
		os.Remove(filepath.Join(b.src, "empty/x")), os.Chmod(filepath.Join(b.src, "script"), 0o755),
		os.Symlink("d1/f1.xml", filepath.Join(b.src, "link")), os.WriteFile(filepath.Join(b.src, "nothing"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := b.must()
	if s.Added != 112 || s.Files != 103 || s.Sent < 3<<20 || s.Sent > 3<<20+50_000 {
		t.Fatalf("%+v", s)
	}
	for p, mode := range map[string]os.FileMode{"script": 0o755, "nothing": 0o600, "d1/f1.xml": 0o644} {
		if st, err := os.Stat(filepath.Join(b.dst, p)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", p, st, err)
		}
	}
	if s := b.must(); s.Added+s.Changed+s.Deleted+uint64(s.Files) != 0 || s.Sent+s.Received > 500 {
		t.Fatalf("nothing changed: %+v", s)
	}

	big := []byte(noise(1, 3<<20))
	copy(big[1_000_000:], "edited")
	write(t, b.src, map[string]string{
		"d1/f1.xml": "<api name='another'/>", "d2/new.xml": "<new/>", "d3/f3.xml": "", "big": string(bytes.Join([][]byte{big[:2<<20], big[2<<20:]}, []byte("inserted"))),
		"d0": "", "link": "",
	})
	write(t, b.src, map[string]string{"d0": "a file now", "link/dir": "a directory now"})
	b.opts.Delete = target.DeleteYes
	s = b.must()
	if s.Sent > 60_000 {
		t.Errorf("%d bytes for three small edits", s.Sent)
	}
	if _, err := os.Stat(filepath.Join(b.data, "partial", "x")); err == nil {
		t.Error("something was left in partial")
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	b := newBed(t)
	write(t, b.src, someFiles(10))
	b.must()
	before := read(t, b.dst)
	write(t, b.src, map[string]string{"d1/f1.xml": "<changed/>", "new": "1", "d2/f2.xml": ""})
	b.opts.DryRun = true
	s, err := b.push()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range s.Lines {
		got = append(got, l.What+" "+string(l.Path))
	}
	if want := "change d1/f1.xml, delete d2/f2.xml, add new"; strings.Join(got, ", ") != want {
		t.Fatalf("%v, want %s", got, want)
	}
	if d := diff(before, read(t, b.dst)); d != "" {
		t.Fatal(d)
	}
}

func TestPromise_NoSurpriseDelete_PushOfAnEmptiedFolder(t *testing.T) {
	b := newBed(t)
	write(t, b.src, someFiles(50))
	b.must()
	before := read(t, b.dst)
	if err := os.RemoveAll(b.src); err != nil {
		t.Fatal(err)
	}
	write(t, b.src, map[string]string{"x": "1"})
	write(t, b.src, map[string]string{"x": ""})
	s, err := b.push()
	if err != nil || s.Held() != 50 || s.Deleted != 0 {
		t.Fatalf("%v: %d held, %d deleted", err, s.Held(), s.Deleted)
	}
	if d := diff(before, read(t, b.dst)); d != "" {
		t.Fatal(d)
	}
	b.opts.Delete = target.DeleteYes
	b.must()
}

// What no tree can hold is named, not passed over in silence.
func TestPushNamesPathsThatAreTooLong(t *testing.T) {
	b := newBed(t)
	write(t, b.src, map[string]string{"a": "1", strings.Repeat("d/", manifest.MaxDepth) + "deep": "2"})
	s, err := b.push()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Lines) != 1 || s.Lines[0].What != target.WhatFailed || !strings.Contains(s.Lines[0].Why, "directories deep") {
		t.Fatalf("%+v", s.Lines)
	}
	if read(t, b.dst)["a"] != "1" {
		t.Fatal("the rest was not pushed")
	}
}

func TestPromise_NoLoss_PushOverWhatWasMadeThere(t *testing.T) {
	b := newBed(t)
	write(t, b.dst, map[string]string{"stood": "here before", "d1/f1.xml": "other"})
	write(t, b.src, someFiles(10))
	s, err := b.push()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, l := range s.Lines {
		got[string(l.Path)] = l.What
	}
	if got["stood"] != target.WhatHeld || got["d1/f1.xml"] != target.WhatKept || len(got) != 2 {
		t.Fatalf("%v", s.Lines)
	}
	if read(t, b.dst)["stood"] != "here before" {
		t.Fatal("it was deleted")
	}
	write(t, b.dst, map[string]string{"d2/f2.xml": "edited there"})
	b.opts.Delete = target.DeleteYes
	s = b.must()
	if len(s.Lines) != 2 || s.Lines[0].What != target.WhatKept || s.Lines[1].What != target.WhatKept {
		t.Fatalf("%v", s.Lines)
	}
	kept, err := target.Kept(b.data)
	if err != nil {
		t.Fatal(err)
	}
	contents := map[string]string{}
	for _, k := range kept {
		var out bytes.Buffer
		if err := target.KeptContent(b.data, k.ID, &out); err != nil {
			t.Fatal(err)
		}
		contents[string(k.Path)] = out.String()
	}
	if contents["stood"] != "here before" || contents["d1/f1.xml"] != "other" || contents["d2/f2.xml"] != "edited there" {
		t.Fatalf("%v", contents)
	}
}
