package syncer

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

// evilPaths are names that no tree can hold; all of them name something
// outside of the root, or nothing.
func evilPaths() []manifest.Path {
	return []manifest.Path{
		"", "..", ".", "/etc/evil", "../evil", "a/../../evil", "d/..", "d/../../evil", "./evil", "d//evil", "d/", "nul\x00evil",
		".gatesync/marker.json", ".gatesync", manifest.Path(strings.Repeat("x", 300)), manifest.Path(strings.Repeat("d/", 10_000) + "evil"),
	}
}

// evilLinks are targets of a link at "l" that lead out of the root.
func evilLinks() []string {
	return []string{"..", "../evil", "/etc/passwd", "d/../../evil", ".gatesync/marker.json", "a\x00b"}
}

// outsideOf lists everything beside the root, so that a test can tell whether
// anything there was made, changed or taken.
func outsideOf(t *testing.T, b *box) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(b.dir, func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p == b.root || p == filepath.Join(b.dir, "blobs") || strings.HasPrefix(e.Name(), ".root.gatesync"):
			return filepath.SkipDir
		case strings.HasPrefix(e.Name(), "t.db"):
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		all = append(all, fmt.Sprint(p, info.Mode(), info.Size(), info.IsDir() || info.ModTime().IsZero()))
		return nil
	})
	must(t, err)
	return strings.Join(all, "\n")
}

// What the machine would refuse, and a hostile or older node brought into the
// log nevertheless, does not come to the disk, and holds nobody up.
func TestPromise_OwnTree_WhatSlippedIntoTheLog(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b").start()
	must(t, os.WriteFile(filepath.Join(b.dir, "evil"), []byte("as it was"), 0o600))
	b.write("d/f", "x")
	h.committed(t, "d/f", "x")
	b.settle()
	before := outsideOf(t, b)
	var changes []manifest.Change
	for i, target := range evilLinks() {
		changes = append(changes, manifest.Change{Path: manifest.Path(fmt.Sprintf("l%d", i)), New: linkTo(target)})
	}
	changes = append(changes,
		manifest.Change{Path: "huge", New: manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: 1<<63 - 1, Digest: manifest.DigestOf(nil)}},
		manifest.Change{Path: "negative", New: manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: -1, Digest: manifest.DigestOf(nil)}},
		manifest.Change{Path: "setuid", New: manifest.Entry{Kind: manifest.File, Mode: 0o4755, Digest: manifest.DigestOf(nil)}},
		manifest.Change{Path: "kind", New: manifest.Entry{Kind: 77}},
		manifest.Change{Path: "l0/below", New: manifest.Entry{Kind: manifest.Dir, Mode: 0o755}},
	)
	for _, c := range changes { // past the hub's own rules
		h.mu.Lock()
		h.tree.Set(c.Path, manifest.Node{Entry: c.New, Revision: h.revision() + 1, Author: "evil"})
		h.commits = append(h.commits, manifest.Commit{
			Revision: h.revision() + 1, Tree: "t", Changes: []manifest.Committed{{Path: c.Path, New: c.New}},
		})
		h.mu.Unlock()
	}
	b.write("good", "comes through")
	h.committed(t, "good", "comes through")
	b.until("what is good comes through, what is not is held", func() bool {
		st, err := b.s.Status(ctxOf(t))
		must(t, err)
		for _, c := range changes[:len(changes)-1] {
			if st.Loop.Notes[c.Path].Guard != GuardUnfit {
				return false
			}
		}
		return b.read("good") == "comes through"
	})
	for _, c := range changes {
		if _, err := os.Lstat(b.path(string(c.Path))); err == nil {
			t.Errorf("%q came to the disk", c.Path)
		}
	}
	if now := outsideOf(t, b); now != before {
		t.Errorf("outside of the root was\n%s\nand is\n%s", before, now)
	}
	// A restart reads it all again, and goes on.
	b.halt()
	b.start()
	b.write("later", "y")
	h.committed(t, "later", "y")
}

// The executor is the last gate: whatever the loop asks of it, nothing outside
// of the root is touched, through paths, through links, or through a directory
// that was made a link in the meantime.
func TestPromise_OwnTree_TheExecutorStaysInside(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b").start()
	must(t, os.MkdirAll(filepath.Join(b.dir, "outside"), 0o755))
	must(t, os.WriteFile(filepath.Join(b.dir, "outside", "evil"), []byte("as it was"), 0o600))
	must(t, os.WriteFile(filepath.Join(b.dir, "evil"), []byte("as it was"), 0o600))
	b.write("d/f", "x")
	h.committed(t, "d/f", "x")
	b.settle()
	e := contentIn(t, b, "evil content")
	must(t, os.Symlink("../outside", b.path("way-out")))
	before := outsideOf(t, b)
	dir := manifest.Entry{Kind: manifest.Dir, Mode: 0o755}
	var steps []Step
	for _, p := range append(evilPaths(), "way-out/evil", "way-out/new") {
		was := Ancestor{Entry: e, Revision: 1}
		for _, s := range []Step{
			{Op: PutFile, New: manifest.Node{Entry: e, Revision: 9}},
			{Op: PutFile, New: manifest.Node{Entry: e, Revision: 9}, Expect: was},
			{Op: PutDir, New: manifest.Node{Entry: dir, Revision: 9}},
			{Op: PutSymlink, New: manifest.Node{Entry: linkTo("x"), Revision: 9}},
			{Op: SetMode, New: manifest.Node{Entry: e, Revision: 9}, Expect: was},
			{Op: Remove, Expect: was},
			{Op: Remove, Expect: Ancestor{Entry: dir, Revision: 1}},
		} {
			s.Path = p
			steps = append(steps, s)
		}
	}
	for _, target := range evilLinks() {
		steps = append(steps, Step{Path: "l", Op: PutSymlink, New: manifest.Node{Entry: linkTo(target), Revision: 9}})
	}
	for i := range steps {
		b.s.apply(ctxOf(t), steps[i:i+1], 0)
	}
	b.s.apply(ctxOf(t), steps, 0)
	if now := outsideOf(t, b); now != before {
		t.Errorf("outside of the root was\n%s\nand is\n%s", before, now)
	}
	for _, f := range []string{"evil", "outside/evil"} {
		if got, err := os.ReadFile(filepath.Join(b.dir, f)); err != nil || string(got) != "as it was" {
			t.Errorf("%s: %q %v", f, got, err)
		}
	}
	if _, err := os.Lstat(b.path("l")); err == nil {
		t.Error("a link that leads out came to the disk")
	}
}

// contentIn puts content into the box's store and returns its entry.
func contentIn(t *testing.T, b *box, content string) manifest.Entry {
	t.Helper()
	ref, err := b.node.store.Put(strings.NewReader(content))
	must(t, err)
	return manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: ref.Size, Digest: ref.Digest}
}
