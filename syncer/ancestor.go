package syncer

import (
	"github.com/tidwall/btree"

	"github.com/gatesync/gatesync/manifest"
)

// AncestorMap maps paths to their ancestors. Clone is O(1) (copy on write);
// clones may be read by other goroutines while the original is written on.
type AncestorMap struct {
	tree *btree.BTreeG[ancestorItem]
}

type ancestorItem struct {
	path manifest.Path
	anc  Ancestor
}

// NewAncestorMap returns an empty map.
func NewAncestorMap() *AncestorMap {
	return &AncestorMap{tree: btree.NewBTreeGOptions(
		func(a, b ancestorItem) bool { return manifest.Compare(a.path, b.path) < 0 },
		btree.Options{NoLocks: true, Degree: 64},
	)}
}

// Clone must not run concurrently with a write to m.
func (m *AncestorMap) Clone() *AncestorMap { return &AncestorMap{tree: m.tree.Copy()} }

// Len counts the paths.
func (m *AncestorMap) Len() int { return m.tree.Len() }

// Get returns the ancestor at p.
func (m *AncestorMap) Get(p manifest.Path) (Ancestor, bool) {
	it, ok := m.tree.Get(ancestorItem{path: p})
	return it.anc, ok
}

// Set puts a at p.
func (m *AncestorMap) Set(p manifest.Path, a Ancestor) { m.tree.Set(ancestorItem{p, a}) }

// Delete removes p.
func (m *AncestorMap) Delete(p manifest.Path) { m.tree.Delete(ancestorItem{path: p}) }

// All calls fn for each path in order until it returns false.
func (m *AncestorMap) All(fn func(manifest.Path, Ancestor) bool) {
	m.tree.Scan(func(it ancestorItem) bool { return fn(it.path, it.anc) })
}

// Under calls fn for each path strictly below dir, in order, until it returns false.
func (m *AncestorMap) Under(dir manifest.Path, fn func(manifest.Path, Ancestor) bool) {
	if dir == "" {
		m.All(fn)
		return
	}
	m.tree.Ascend(ancestorItem{path: dir + "/"}, func(it ancestorItem) bool {
		return it.path.Under(dir) && fn(it.path, it.anc)
	})
}

// node is the ancestor as the log would tell it.
func (a Ancestor) node() manifest.Node {
	return manifest.Node{Entry: a.Entry, Revision: a.Revision, Author: a.Author}
}

// manifest is what the map says, for a comparison with a committed manifest.
func (m *AncestorMap) manifest() *manifest.Manifest {
	out := manifest.New()
	m.All(func(p manifest.Path, a Ancestor) bool {
		out.Set(p, a.node())
		return true
	})
	return out
}
