package sim

import (
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// checkSettled: after writes have stopped and everybody talks, every tree
// equals the committed manifest, but for what is named as held.
func (w *world) checkSettled() {
	w.checkOrder()
	w.checkLedger()
	w.checkContent()
	for _, n := range w.nodes {
		if n.gone {
			continue
		}
		st := n.loop.Status()
		if st.RootLost != "" {
			if !n.root.bare {
				w.fail("Converge: node %d has its root and says that it is lost", n.index)
			}
			continue
		}
		w.checkTree(n, st)
	}
}

// checkPeace: nothing is held any more.
func (w *world) checkPeace() {
	w.checkSettled()
	for _, n := range w.nodes {
		if st := n.loop.Status(); !n.gone && len(st.Notes) > 0 {
			w.fail("Converge: node %d still holds %v: %q", n.index, st.Notes, n.loop.Works())
		}
	}
}

func (w *world) checkTree(n *node, st syncer.LoopStatus) {
	switch {
	case st.Revision != w.oracle.machine.Revision():
		w.fail("Converge: node %d has heard of revision %d of %d", n.index, st.Revision, w.oracle.machine.Revision())
	case st.Applied != st.Revision:
		w.fail("Converge: node %d says it has applied %d of %d: %q", n.index, st.Applied, st.Revision, n.loop.Works())
	case st.Unsettled > 0 || st.Joiner:
		w.fail("Converge: node %d has %d unsettled paths (joiner: %v): %q", n.index, st.Unsettled, st.Joiner, n.loop.Works())
	case len(n.saved.displaced) > 0:
		w.fail("Converge: node %d has not judged what it displaced", n.index)
	}
	want := w.oracle.view().Manifest
	for _, p := range n.disk.below("") {
		if have := n.disk.at[p].entry(); !have.Same(want.Entry(p)) && !n.noted(st, p) {
			w.fail("Converge: node %d has %q as %s (%q), the log says %s", n.index, p, have, n.disk.at[p].text, want.Entry(p))
		}
	}
	want.All(func(p manifest.Path, node manifest.Node) bool {
		if n.disk.at[p] == nil && !n.noted(st, p) {
			w.fail("Converge: node %d lacks %q, the log says %s", n.index, p, node.Entry)
		}
		return true
	})
}

// noted tells whether status names p as held; on a mount, whether that of any of
// its nodes does.
func (n *node) noted(st syncer.LoopStatus, p manifest.Path) bool {
	_, ok := st.Notes[p]
	if n.on != nil {
		for _, o := range n.on.nodes {
			_, there := o.loop.Status().Notes[p]
			ok = ok || there
		}
	}
	return ok
}

// checkContent: what the log retains is on the disks of a majority of the
// voters, and what was kept aside is where it was kept.
func (w *world) checkContent() {
	for _, d := range w.oracle.retained() {
		if have := w.holders(d, w.voters); have <= len(w.voters)/2 {
			w.fail("NoLoss: %d of %d voters hold %s of revision %d", have, len(w.voters), d.Short(), w.oracle.seen[d])
		}
	}
	for _, n := range w.nodes {
		for _, a := range n.saved.asides {
			if a.lost.HasContent() && !n.gone && !n.store.durable[a.lost.Digest] {
				w.fail("NoLoss: node %d has lost what it kept aside of %q", n.index, a.path)
			}
		}
	}
}
