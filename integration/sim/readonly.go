package sim

import (
	"maps"

	"github.com/gatesync/gatesync/manifest"
)

// someEdits are a new node's settings.
func (w *world) someEdits() manifest.Edits {
	if w.opt.ReadOnly == 0 || !w.chance(w.opt.ReadOnly) {
		return manifest.EditsOffered
	}
	return []manifest.Edits{manifest.EditsReported, manifest.EditsRepaired}[w.rng.IntN(2)]
}

// settings are those of the life that begins: an operator may have changed them
// before the start.
func (n *node) settings() manifest.Edits {
	w := n.w
	if w.opt.ReadOnly == 0 || w.peace || n.life == 1 || !w.chance(0.5) {
		return n.edits
	}
	was := n.edits
	now := w.someEdits()
	if was != now {
		w.trace("node %d: edits are %v from now on", n.index, now)
	}
	return now
}

// shuts notes, of what its gateway leaves at a path, whether the tree takes edits.
// What is edited while the daemon is down is of the time before.
func (r *rules) shuts(n *node, p manifest.Path) {
	if n.edits != manifest.EditsOffered {
		r.shut[p] = true
		return
	}
	if n.saved.closed && !n.alive {
		return
	}
	delete(r.shut, p)
	if n.disk.at[p] == nil { // it may have been moved as a whole
		maps.DeleteFunc(r.shut, func(q manifest.Path, _ bool) bool { return q.Under(p) })
	}
}
