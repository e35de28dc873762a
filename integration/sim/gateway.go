package sim

import (
	"fmt"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// gatewayActs does one random thing to the tree, as a gateway or a person
// would: the daemon is told of it by a hint, sometimes not at all.
func (n *node) gatewayActs() {
	w, d := n.w, n.disk
	p := w.somePath()
	var touched []manifest.Path
	switch w.rng.IntN(10) {
	case 0, 1: // an editor: new inode, renamed into place
		if d.mkdir(p.Dir()) && !d.isDir(p) {
			d.put(p, w.text(), 0o644)
			touched = append(touched, p)
		}
	case 2, 3, 4: // in place, open for a while
		n.writeInPlace(p)
		return
	case 5, 6:
		if d.at[p] != nil {
			touched = append(d.below(p), p)
			d.removeAll(p)
		}
	case 7:
		if i := d.at[p]; i != nil {
			i.mode = []uint32{0o644, 0o755, 0o700}[w.rng.IntN(3)]
			d.clock++
			i.stamp.CTime = d.clock
			touched = append(touched, p)
		}
	case 8:
		q := w.somePath()
		if d.at[p] != nil && d.at[q] == nil && q != p && !q.Under(p) && d.mkdir(q.Dir()) {
			d.rename(p, q)
			touched = append(touched, p, q)
		}
	case 9: // a file becomes a directory, or the reverse
		if i := d.at[p]; i != nil && i.kind == manifest.File {
			delete(d.at, p)
			d.mkdir(p)
		} else if i != nil {
			d.removeAll(p)
			d.put(p, w.text(), 0o644)
		} else {
			d.mkdir(p)
		}
		touched = append(touched, p)
	}
	n.saw(touched...)
}

// writeInPlace truncates, writes a part, and finishes later.
func (n *node) writeInPlace(p manifest.Path) {
	w, d := n.w, n.disk
	if !d.mkdir(p.Dir()) || d.isDir(p) {
		return
	}
	i := d.at[p]
	if i == nil {
		i = d.put(p, "", 0o644)
	}
	if i.writing {
		return
	}
	i.writing, i.text = true, "torn"
	d.touch(i, false)
	n.saw(p)
	w.after(w.some(300*time.Millisecond), func() {
		if !i.writing {
			return // lost with the power
		}
		i.text, i.writing = w.text(), false
		d.touch(i, false)
		n.saw(p)
	})
}

// saw hints at paths, their parents and what lies below, unless the event is lost.
func (n *node) saw(paths ...manifest.Path) {
	if len(paths) == 0 || !n.alive || n.w.chance(0.1) {
		return
	}
	var hints []manifest.Path
	for _, p := range paths {
		n.w.trace("node %d gateway touches %q", n.index, p)
		hints = append(append(hints, p), n.disk.below(p)...)
		for dir := p.Dir(); dir != ""; dir = dir.Dir() {
			hints = append(hints, dir)
		}
	}
	n.later(5*time.Millisecond, func() { n.post(syncer.Hinted{Paths: hints}) })
}

func (w *world) text() string {
	w.texts++
	return fmt.Sprintf("text %d", w.texts)
}

// somePath draws from a small set of names, some inside others' way.
func (w *world) somePath() manifest.Path {
	k := w.rng.IntN(w.opt.Paths)
	switch k % 4 {
	case 0:
		return manifest.Path(fmt.Sprintf("f%d", k))
	case 1:
		return manifest.Path(fmt.Sprintf("d%d", k%2))
	case 2:
		return manifest.Path(fmt.Sprintf("d%d/f%d", k%3, k))
	}
	return manifest.Path(fmt.Sprintf("d%d/e/f%d", k%3, k))
}
