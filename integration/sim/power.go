package sim

import "github.com/gatesync/gatesync/manifest"

// powerCut leaves what was flushed, and of what changed in directories since
// then the older part, as a journal would.
func (n *node) powerCut() {
	d := n.disk
	n.store.powerCut()
	if n.on != nil {
		return // the file server has lost nothing
	}
	for _, p := range d.below("") {
		n.w.ledger.excuse(d.at[p], "lost with the power") // unless it is there again below
	}
	survive := n.w.rng.IntN(len(d.undo) + 1)
	for k := len(d.undo) - 1; k >= survive; k-- {
		d.undo[k]()
	}
	d.undo = nil
	newest := n.w.oracle.view().Manifest
	for _, p := range d.below("") {
		if i := d.at[p]; i.kind == manifest.File {
			n.tear(p, i, newest.Entry(p))
		}
	}
	for k := range n.saved.displaced {
		if i := n.saved.displaced[k].inode; i.text != i.flushed {
			n.w.ledger.excuse(i, "lost with the power")
			i.text, i.writers = i.flushed, 0
		}
	}
	n.rules.adrift(d)
	for _, p := range d.below("") {
		if i := d.at[p]; i.text == i.flushed {
			n.w.ledger.hold(i)
		}
	}
}

// tear leaves of a file what was flushed. One that the log already holds and
// that this disk has yet to record may be left empty (the case that the
// ancestor must not be fooled by), and so may one that was recorded without
// being flushed. What the log does not hold is as it was before its writer came.
func (n *node) tear(p manifest.Path, i *inode, newest manifest.Entry) {
	i.writers = 0
	a, d := n.saved.ancestors[p], manifest.DigestOf([]byte(i.text))
	agreed := a.Entry.Digest == d
	switch {
	case i.text == i.flushed && i.text != "":
		return
	case agreed && a.Stamp != i.stamp: // the same was written again: whichever of both is left
		i.flushed = i.text
		return
	case agreed, newest.Digest == d:
		i.text, i.torn = "", true
	case i.flushed == "":
		delete(n.disk.at, p)
		return
	default:
		i.text = i.flushed
	}
	i.touch(n.wall(), true)
}
