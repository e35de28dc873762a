package node

import (
	"hash/maphash"

	"github.com/gatesync/gatesync/manifest"
)

// formers remembers which content each path has ever held, as far as it was
// told: 8 bytes for each. That two of them hash alike happens once in 2^64
// questions for each content known; then an edit that nobody saw is kept aside.
type formers struct {
	seed maphash.Seed
	held map[uint64]struct{}
	upTo manifest.Revision // that it was told of
}

// heldContent is what is remembered, of files and symlinks.
type heldContent struct {
	path   manifest.Path
	kind   manifest.Kind
	size   int64
	digest manifest.Digest
	target string
}

func newFormers() *formers {
	return &formers{seed: maphash.MakeSeed(), held: map[uint64]struct{}{}}
}

// add takes the commits that came after upTo, up to now.
func (f *formers) add(commits []manifest.Commit, now manifest.Revision) {
	for _, c := range commits {
		for _, ch := range c.Changes {
			for _, e := range []manifest.Entry{ch.Old.Entry, ch.New} {
				if e.IsLeaf() {
					f.held[f.key(ch.Path, e)] = struct{}{}
				}
			}
		}
	}
	f.upTo = max(f.upTo, now)
}

// has tells whether a path has held a file's content, or a symlink.
func (f *formers) has(p manifest.Path, e manifest.Entry) bool {
	_, ok := f.held[f.key(p, e)]
	return ok
}

func (f *formers) key(p manifest.Path, e manifest.Entry) uint64 {
	return maphash.Comparable(f.seed, heldContent{p, e.Kind, e.Size, e.Digest, e.Target})
}
