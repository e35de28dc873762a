package manifest

import (
	"encoding/binary"

	"github.com/tidwall/btree"
)

// Manifest maps paths to nodes for a whole tree. The zero value is not usable;
// call New. A Manifest is not safe for concurrent use while it is written;
// Clone is O(1), and clones may be read by others while the original is
// written on.
type Manifest struct {
	nodes *btree.BTreeG[item]
	hint  btree.PathHint
}

type item struct {
	path Path
	node Node
}

// New returns an empty manifest.
func New() *Manifest {
	return &Manifest{nodes: btree.NewBTreeGOptions(
		func(a, b item) bool { return Compare(a.path, b.path) < 0 },
		btree.Options{NoLocks: true, Degree: 64},
	)}
}

// Clone returns an independent copy in O(1) (copy on write). It must not run
// concurrently with a write to m.
func (m *Manifest) Clone() *Manifest { return &Manifest{nodes: m.nodes.Copy()} }

// Len counts the entries.
func (m *Manifest) Len() int { return m.nodes.Len() }

// Get returns what stands at p; ok is false where nothing does.
func (m *Manifest) Get(p Path) (n Node, ok bool) {
	it, ok := m.nodes.Get(item{path: p})
	return it.node, ok
}

// Entry returns the entry at p, the zero Entry where nothing stands.
func (m *Manifest) Entry(p Path) Entry {
	it, _ := m.nodes.Get(item{path: p})
	return it.node.Entry
}

// Set puts n at p.
func (m *Manifest) Set(p Path, n Node) { m.nodes.SetHint(item{p, n}, &m.hint) }

// Delete removes what stands at p.
func (m *Manifest) Delete(p Path) { m.nodes.Delete(item{path: p}) }

// All calls fn for each path in order until it returns false.
func (m *Manifest) All(fn func(Path, Node) bool) {
	m.nodes.Scan(func(it item) bool { return fn(it.path, it.node) })
}

// Under calls fn for each path strictly below dir, in order, until it returns
// false. Under("") is All.
func (m *Manifest) Under(dir Path, fn func(Path, Node) bool) {
	if dir == "" {
		m.All(fn)
		return
	}
	m.nodes.Ascend(item{path: dir + "/"}, func(it item) bool {
		if !it.path.Under(dir) {
			return false
		}
		return fn(it.path, it.node)
	})
}

// HasChildren tells whether anything stands below dir.
func (m *Manifest) HasChildren(dir Path) (has bool) {
	m.Under(dir, func(Path, Node) bool { has = true; return false })
	return has
}

// Diff calls fn for each path whose node differs between two manifests, in
// order; an absent node is the zero Node. It walks both: O(n).
func Diff(a, b *Manifest, fn func(p Path, was, is Node)) {
	ia, ib := a.nodes.Iter(), b.nodes.Iter()
	defer ia.Release()
	defer ib.Release()
	ha, hb := ia.First(), ib.First()
	for ha || hb {
		var c int
		switch {
		case !ha:
			c = 1
		case !hb:
			c = -1
		default:
			c = Compare(ia.Item().path, ib.Item().path)
		}
		switch {
		case c < 0:
			fn(ia.Item().path, ia.Item().node, Node{})
			ha = ia.Next()
		case c > 0:
			fn(ib.Item().path, Node{}, ib.Item().node)
			hb = ib.Next()
		default:
			if ia.Item().node != ib.Item().node {
				fn(ia.Item().path, ia.Item().node, ib.Item().node)
			}
			ha, hb = ia.Next(), ib.Next()
		}
	}
}

// RootDigest is the Merkle digest of the whole tree: each directory's digest
// covers its children's names, kinds, modes and digests, in path order. Two
// manifests have one root digest exactly if every entry is the Same. O(n).
func (m *Manifest) RootDigest() Digest {
	type open struct {
		path Path
		hash Hasher
		mode uint32
	}
	stack := []open{{hash: NewHasher()}}
	closeTop := func() {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		feed(stack[len(stack)-1].hash, top.path.Base(), Entry{Kind: Dir, Mode: top.mode, Digest: top.hash.Digest()})
	}
	m.All(func(p Path, n Node) bool {
		for len(stack) > 1 && !p.Under(stack[len(stack)-1].path) {
			closeTop()
		}
		if n.Entry.IsDir() {
			stack = append(stack, open{p, NewHasher(), n.Entry.Mode})
			return true
		}
		feed(stack[len(stack)-1].hash, p.Base(), n.Entry)
		return true
	})
	for len(stack) > 1 {
		closeTop()
	}
	return stack[0].hash.Digest()
}

// feed writes one child in a form that no other child can imitate.
func feed(h Hasher, name string, e Entry) {
	b := make([]byte, 0, 64+len(name))
	b = binary.AppendUvarint(b, uint64(len(name)))
	b = append(b, name...)
	b = append(b, byte(e.Kind))
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendUvarint(b, uint64(e.Size))
	b = append(b, e.Digest[:]...)
	_, _ = h.Write(b) // a Hasher's Write never fails
}
