package manifest

import (
	"testing"

	"pgregory.net/rapid"
)

func file(text string) Entry {
	return Entry{Kind: File, Mode: 0o644, Size: int64(len(text)), Digest: DigestOf([]byte(text))}
}

func at(e Entry, r Revision) Node {
	if e.Absent() {
		return Node{}
	}
	return Node{Entry: e, Revision: r, Author: "n-1"}
}

func TestReconcileTable(t *testing.T) {
	v1, v2, v3, none := file("1"), file("2"), file("3"), Entry{}
	x1 := v1
	x1.Mode = 0o755
	dir, dir700 := Entry{Kind: Dir, Mode: 0o755}, Entry{Kind: Dir, Mode: 0o700}
	for name, c := range map[string]struct {
		views Views
		want  Verdict
	}{
		"all absent":                         {Views{}, Nothing},
		"all same":                           {Views{Ancestor: at(v1, 1), Disk: v1, Committed: at(v1, 1)}, Nothing},
		"log moved":                          {Views{Ancestor: at(v1, 1), Disk: v1, Committed: at(v2, 2)}, Materialize},
		"log deleted":                        {Views{Ancestor: at(v1, 1), Disk: v1}, Materialize},
		"new in the log":                     {Views{Committed: at(v1, 1)}, Materialize},
		"disk moved":                         {Views{Ancestor: at(v1, 1), Disk: v2, Committed: at(v1, 1)}, Offer},
		"disk deleted":                       {Views{Ancestor: at(v1, 1), Committed: at(v1, 1)}, Offer},
		"new on disk":                        {Views{Disk: v1}, Offer},
		"both to the same":                   {Views{Ancestor: at(v1, 1), Disk: v2, Committed: at(v2, 2)}, Agree},
		"both deleted":                       {Views{Ancestor: at(v1, 1)}, Agree},
		"same entry at a later revision":     {Views{Ancestor: at(v1, 1), Disk: v1, Committed: at(v1, 3)}, Agree},
		"both moved":                         {Views{Ancestor: at(v1, 1), Disk: v2, Committed: at(v3, 2)}, Collide},
		"both appeared":                      {Views{Disk: v2, Committed: at(v3, 2)}, Collide},
		"edit meets a deletion":              {Views{Ancestor: at(v1, 1), Disk: v2}, Collide},
		"deletion meets an edit":             {Views{Ancestor: at(v1, 1), Committed: at(v2, 2)}, Materialize},
		"disk holds what was in between":     {Views{Ancestor: at(v1, 1), Disk: v2, Committed: at(v3, 3), Since: []Entry{v2, v3}}, Materialize},
		"came and went while away":           {Views{Disk: v1, Since: []Entry{v1, {}}}, Materialize},
		"torn by a power cut, deleted since": {Views{Disk: v2, Since: []Entry{v1, {}}}, Collide},
		"own commit meets a newer disk":      {Views{Ancestor: at(v1, 1), Disk: v3, Committed: at(v2, 2), Since: []Entry{v2}, Own: true}, Offer},
		"a chmod under an edit of the same":  {Views{Ancestor: at(v1, 1), Disk: v2, Committed: at(x1, 2)}, Collide},
		"only the mode collides":             {Views{Ancestor: at(v3, 1), Disk: v1, Committed: at(x1, 2)}, Materialize},
		"directories lose no content":        {Views{Ancestor: at(dir, 1), Disk: dir700, Committed: at(Entry{Kind: Dir, Mode: 0o711}, 2)}, Materialize},
		"changed directory was removed":      {Views{Ancestor: at(dir, 1), Disk: dir700}, Materialize},
		"file where a directory is wanted":   {Views{Ancestor: at(none, 0), Disk: v1, Committed: at(dir, 2)}, Collide},
	} {
		if got := Reconcile(c.views); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// Whatever the views: an edit that the log does not hold is offered or kept
// aside, and an untouched disk is never offered.
func TestPromise_NoLoss_Reconcile(t *testing.T) {
	entry := rapid.SampledFrom([]Entry{{}, file("1"), file("2"), file("3"), {Kind: Dir, Mode: 0o755}})
	rapid.Check(t, func(t *rapid.T) {
		v := Views{Disk: entry.Draw(t, "disk"), Own: rapid.Bool().Draw(t, "own")}
		v.Ancestor = at(entry.Draw(t, "ancestor"), Revision(rapid.IntRange(1, 2).Draw(t, "ar")))
		v.Committed = at(entry.Draw(t, "committed"), Revision(rapid.IntRange(1, 3).Draw(t, "cr")))
		got := Reconcile(v)
		switch {
		case v.Disk.Same(v.Committed.Entry):
			if got != Nothing && got != Agree {
				t.Fatalf("%+v agree, but: %s", v, got)
			}
		case v.Disk.Same(v.Ancestor.Entry):
			if got != Materialize {
				t.Fatalf("%+v: untouched disk, but: %s", v, got)
			}
		case v.Disk.HasContent() && !v.Disk.SameContent(v.Committed.Entry):
			if got != Offer && got != Collide {
				t.Fatalf("%+v: an edit would be lost by: %s", v, got)
			}
		}
	})
}
