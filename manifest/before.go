package manifest

import "slices"

// Before is the tree as it was at an earlier revision: v without the commits
// above it, which are the tree's, oldest first, at least as far as v goes.
func (v View) Before(rev Revision, commits []Commit) View {
	if rev >= v.Revision {
		return v
	}
	was := v.Manifest.Clone()
	for _, c := range slices.Backward(commits) {
		if c.Revision <= rev || c.Revision > v.Revision {
			continue
		}
		for _, ch := range c.Changes {
			if ch.Old.Entry.Absent() {
				was.Delete(ch.Path)
			} else {
				was.Set(ch.Path, ch.Old)
			}
		}
	}
	return View{Tree: v.Tree, Revision: rev, Manifest: was}
}
