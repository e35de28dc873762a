package sim

import (
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// replace puts a new file into place, over a file or nothing.
func (n *node) replace(p manifest.Path, text string) {
	d := n.disk
	if n.root.away || !d.mkdir(p.Dir(), n.wall()) || p != "" && d.at[p] != nil && d.at[p].kind == manifest.Dir {
		return
	}
	n.w.ledger.excuse(d.at[p], "replaced by its gateway")
	n.finished(p, d.put(p, text, n.wall()))
}

// link puts a symlink into place.
func (n *node) link(p manifest.Path) {
	d := n.disk
	if !d.mkdir(p.Dir(), n.wall()) || d.isDir(p) {
		return
	}
	n.w.ledger.excuse(d.at[p], "replaced by its gateway")
	d.set(p, d.make(manifest.Symlink, 0o777, []string{"a", "b"}[n.w.rng.IntN(2)], n.wall()))
	n.did(p)
}

func (n *node) makeDir(p manifest.Path) {
	n.disk.mkdir(p, n.wall())
	n.did(p)
}

// take removes p and everything below it.
func (n *node) take(p manifest.Path) {
	if n.disk.at[p] == nil {
		return
	}
	gone := append(n.disk.below(p), p)
	slices.SortFunc(gone, func(a, b manifest.Path) int { return manifest.Compare(b, a) }) // from the bottom
	for _, q := range gone {
		n.w.ledger.excuse(n.disk.at[q], "removed by its gateway")
		n.disk.set(q, nil)
	}
	n.did(gone...)
}

// finished says that a gateway has closed a file that it wrote.
func (n *node) finished(p manifest.Path, i *inode) {
	n.w.ledger.wrote(n, i)
	n.did(p)
}

// finishedInode is finished for a file that may have moved meanwhile, or been
// removed by its gateway; or been displaced where leases do not work.
func (n *node) finishedInode(i *inode) {
	n.w.ledger.wrote(n, i)
	if n.didInode(i) {
		return
	}
	for _, d := range n.saved.displaced {
		if d.inode == i {
			return
		}
	}
	n.w.ledger.excuse(i, "written to what its gateway had removed")
}

func (n *node) didInode(i *inode) (there bool) {
	for _, p := range n.disk.below("") {
		if n.disk.at[p] == i {
			n.did(p)
			return true
		}
	}
	return false
}

// did notes what stands at paths now as a gateway's work, and hints at them,
// their parents and what lies below, unless the event is lost.
func (n *node) did(paths ...manifest.Path) {
	var hints []manifest.Path
	for _, p := range paths {
		n.w.trace("node %d gateway leaves %q as %s", n.index, p, n.disk.at[p])
		hints = append(append(hints, p), n.disk.below(p)...)
		for _, q := range append(n.disk.below(p), p) {
			if i := n.disk.at[q]; i != nil {
				i.edit = true
			}
		}
		for dir := p.Dir(); dir != ""; dir = dir.Dir() {
			hints = append(hints, dir)
		}
	}
	for _, p := range hints {
		n.rules.wrote(p, n.disk.at[p].entry())
		n.rules.shuts(n, p)
		n.mine(p)
	}
	if n.alive && !n.w.chance(0.1) {
		n.rules.told(hints, 1)
		n.later(5*time.Millisecond, func() {
			n.rules.told(hints, -1)
			n.post(syncer.Hinted{Paths: hints, Witnessed: true})
		})
	}
}

func (i *inode) String() string {
	switch {
	case i == nil:
		return "nothing"
	case i.kind == manifest.File && i.writers > 0:
		return "file " + i.text + ", open"
	}
	return i.kind.String() + " " + i.text
}
