package sim

import (
	"maps"
	"slices"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// ruleSome is a person who looks at what is held and says something.
func (n *node) ruleSome() {
	if !n.alive {
		return
	}
	verb := []syncer.Verb{syncer.Approve, syncer.Restore, syncer.Retry}[n.w.rng.IntN(3)]
	var paths []manifest.Path
	if held := n.held(); len(held) > 0 && n.w.chance(0.5) {
		paths = append(paths, held[n.w.rng.IntN(len(held))])
	}
	n.rule(verb, paths...)
}

func (n *node) held() []manifest.Path {
	return slices.SortedFunc(maps.Keys(n.loop.Status().Notes), manifest.Compare)
}

// rule is an operator's word on what is held; no paths: all of it.
func (n *node) rule(verb syncer.Verb, paths ...manifest.Path) {
	n.w.trace("node %d operator says %d of %q (all: %v), held is %q", n.index, verb, paths, len(paths) == 0, n.held())
	n.rules.ruled(n, verb, paths)
	n.post(syncer.Ruling{Verb: verb, Paths: paths})
	if len(paths) == 0 && verb != syncer.Retry && n.root.bare {
		n.root.remake = true
	}
}

// speak is the last word of all operators: nothing stays held.
func (w *world) speak() (spoke bool) {
	for _, n := range w.nodes {
		if !n.gone && len(n.held()) > 0 {
			spoke = true
			n.rule([]syncer.Verb{syncer.Approve, syncer.Restore}[w.rng.IntN(2)])
		}
	}
	return spoke
}
