package syncer

import (
	"os"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

// A joiner that adopts dies with its machine before it has recorded what it has
// offered, and the file, which nobody had flushed, is left empty. Meanwhile
// another node has deleted it: it does not come back, least of all empty. What
// the joiner had not offered is adopted as ever.
func TestPromise_NoTornFile_JoinerDiesBeforeItRecords(t *testing.T) {
	h := newHub()
	h.commit(manifest.Changeset{ID: manifest.ChangesetID{Node: "other"}, Changes: []manifest.Change{{Path: "d", New: manifest.Entry{Kind: manifest.Dir, Mode: 0o755}}}})
	h.mute, h.replay = true, 1 // its commit is neither answered nor read
	b := newBox(t, h, "b")
	b.change = func(c *Config) { c.Joiner, c.Loop.Adopt = true, true }
	if err := os.Mkdir(b.path("d"), 0o755); err != nil { // nothing is to be placed, which begins too
		t.Fatal(err)
	}
	b.write("f", "mine")
	b.start()
	b.until("f is committed", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.tree.Entry("f").HasContent()
	})
	b.halt()

	if err := os.Truncate(b.path("f"), 0); err != nil {
		t.Fatal(err)
	}
	b.write("g", "adopted")
	h.mute, h.replay = false, 0
	was, _ := h.tree.Get("f")
	if res := h.commit(manifest.Changeset{ID: manifest.ChangesetID{Node: "other"}, Changes: []manifest.Change{{Path: "f", Expect: was.Revision}}}); res.Revision == 0 {
		t.Fatalf("f is not deleted: %+v", res)
	}
	b.change = func(c *Config) { c.Joiner, c.Loop.Adopt, c.BootID = true, true, "boot-2" }
	b.start().settle()
	b.until("g is adopted", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.tree.Entry("g").HasContent()
	})
	b.settle()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.commits[2:] {
		for _, ch := range c.Changes {
			if ch.Path == "f" && !ch.New.Absent() {
				t.Errorf("revision %d: f is back, as %s", c.Revision, ch.New)
			}
		}
	}
	if _, err := os.Lstat(b.path("f")); !os.IsNotExist(err) {
		t.Errorf("f stands in the tree: %v", err)
	}
}
