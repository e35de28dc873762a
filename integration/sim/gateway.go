package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// gatewayActs does one random thing to the tree, as a gateway or a person
// would: the daemon is told of it by a hint, sometimes not at all.
func (n *node) gatewayActs() {
	if n.root.away || n.gone {
		return
	}
	w, d := n.w, n.disk
	p, q := w.somePath(), w.somePath()
	i := d.at[p]
	switch w.rng.IntN(16) {
	case 0, 1: // an editor: new inode, renamed into place
		n.replace(p, w.content())
	case 2: // another kind of editor: unlinks first
		if i != nil && i.kind == manifest.File {
			n.take(p)
			w.after(w.some(700*time.Millisecond), func() { n.replace(p, w.text()) })
		}
	case 3, 4, 5, 6: // in place, open for a while
		n.writeInPlace(p)
	case 7, 8: // rm -rf
		n.take(p)
	case 9: // rm -rf that takes its time
		n.takeSlowly(append(d.below(p), p))
	case 10:
		if i != nil && i.kind != manifest.Symlink {
			d.chmod(i, []uint32{0o644, 0o755, 0o700}[w.rng.IntN(3)], n.wall())
			n.did(p)
		}
	case 11, 12:
		// Whoever moves a torn file makes it an edit of his own.
		if i != nil && d.at[q] == nil && q != p && !q.Under(p) && !d.tornIn(p) && d.mkdir(q.Dir(), n.wall()) {
			d.rename(p, q, n.wall())
			n.did(p, q)
		}
	case 13: // a file becomes a directory, or the reverse
		switch {
		case i != nil && i.kind != manifest.Dir:
			n.take(p)
			n.makeDir(p)
		case i != nil:
			n.take(p)
			n.replace(p, w.text())
		default:
			n.makeDir(p)
		}
	case 14:
		n.link(p)
	case 15:
		if w.chance(0.2) {
			n.takeSlowly(d.below("")) // all of it
		} else if i != nil && i.kind == manifest.File {
			i.touch(n.wall(), true)
			n.did(p)
		}
	}
}

// writeInPlace opens a file, truncates it, writes it in some pieces, and closes
// it. Where leases do not work it never rests for a quiet period.
func (n *node) writeInPlace(p manifest.Path) {
	w, d := n.w, n.disk
	if !d.mkdir(p.Dir(), n.wall()) || d.at[p] != nil && d.at[p].kind != manifest.File {
		return
	}
	i := d.at[p]
	if i == nil {
		i = d.put(p, "", n.wall())
	}
	if i.writers > 0 {
		return
	}
	i.writers++
	n.w.ledger.excuse(i, "written over by its gateway")
	whole := w.content()
	var write func(piece int)
	write = func(piece int) {
		if i.writers == 0 {
			return // lost with the power
		}
		if piece == 3 || w.chance(0.4) {
			i.text = whole
			i.touch(n.wall(), true)
			i.writers--
			n.finishedInode(i)
			return
		}
		i.text = fmt.Sprintf("torn %d of %s", piece, whole)
		w.ledger.torn[manifest.DigestOf([]byte(i.text))] = true
		i.touch(n.wall(), true)
		n.didInode(i)
		w.after(w.some(600*time.Millisecond), func() { write(piece + 1) })
	}
	i.text = ""
	i.touch(n.wall(), true)
	n.did(p)
	if w.chance(0.5) {
		write(1)
	} else {
		w.after(w.some(600*time.Millisecond), func() { write(1) })
	}
}

// takeSlowly removes paths one by one.
func (n *node) takeSlowly(paths []manifest.Path) {
	for k, p := range paths {
		n.w.after(time.Duration(k)*20*time.Millisecond, func() {
			if !n.root.away && len(n.disk.below(p)) == 0 {
				n.take(p)
			}
		})
	}
}

// text is content that nobody has written before.
func (w *world) text() string {
	w.texts++
	return fmt.Sprintf("text %d%s", w.texts, strings.Repeat(".", w.rng.IntN(3)))
}

// content is mostly new; now and then a gateway writes old content back.
func (w *world) content() string {
	if old := w.ledger.texts; w.chance(0.1) && len(old) > 0 {
		return old[w.rng.IntN(len(old))]
	}
	return w.text()
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
