package node

import (
	"context"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// summary is what a tree's disk is known to agree with, in figures.
type summary struct {
	digest         manifest.Digest
	entries, files int
	bytes          int64
}

// summarize reads a tree's ancestor: O(n), without looking at the disk.
func (t *tree) summarize(ctx context.Context) (summary, error) {
	anc, err := t.syncr.Ancestor(ctx)
	if err != nil {
		return summary{}, err
	}
	s := summary{entries: anc.Len()}
	m := manifest.New()
	anc.All(func(p manifest.Path, a syncer.Ancestor) bool {
		m.Set(p, manifest.Node{Entry: a.Entry})
		if a.Entry.Kind == manifest.File {
			s.files++
			s.bytes += a.Entry.Size
		}
		return true
	})
	s.digest = m.RootDigest()
	return s, nil
}
