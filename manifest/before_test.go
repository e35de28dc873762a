package manifest_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/gatesync/gatesync/manifest"
)

// Going back from the newest view gives each view that there was.
func TestBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := manifest.New()
		views := []manifest.View{{Tree: "t", Manifest: now.Clone()}}
		var commits []manifest.Commit
		last := manifest.Revision(rapid.IntRange(1, 20).Draw(t, "revisions"))
		for rev := manifest.Revision(1); rev <= last; rev++ {
			c := manifest.Commit{Revision: rev, Tree: "t"}
			for i := range rapid.IntRange(1, 3).Draw(t, "changes") {
				p := manifest.Path(fmt.Sprintf("%d%d", i, rapid.IntRange(0, 2).Draw(t, "path")))
				old, _ := now.Get(p)
				ch := manifest.Committed{Path: p, Old: old}
				if old.Entry.Absent() || rapid.Bool().Draw(t, "edit") {
					content := fmt.Appendf(nil, "%d", rev)
					ch.New = manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: int64(len(content)), Digest: manifest.DigestOf(content)}
					now.Set(p, manifest.Node{Entry: ch.New, Revision: rev})
				} else {
					now.Delete(p)
				}
				c.Changes = append(c.Changes, ch)
			}
			commits = append(commits, c)
			views = append(views, manifest.View{Tree: "t", Revision: rev, Manifest: now.Clone()})
		}
		newest := views[rapid.IntRange(0, len(views)-1).Draw(t, "newest")]
		for rev := range newest.Revision + 1 {
			got := newest.Before(rev, commits[min(rev, manifest.Revision(len(commits))):])
			if got.Revision != rev {
				t.Fatalf("asked for revision %d, got %d", rev, got.Revision)
			}
			manifest.Diff(views[rev].Manifest, got.Manifest, func(p manifest.Path, was, is manifest.Node) {
				t.Errorf("revision %d, seen from %d: %s was %v, is %v", rev, newest.Revision, p, was, is)
			})
		}
	})
}
