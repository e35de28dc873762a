package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// sweep is what a person or a script does to much of a tree at once: to one
// node's, or to some nodes' in the same moment.
func (w *world) sweep() {
	k := 1
	if w.chance(0.3) {
		k = 2
	}
	for range k {
		w.after(w.some(2*time.Second), func() { w.someNode().sweeps() })
	}
}

func (n *node) sweeps() {
	if n.root.away || n.gone {
		return
	}
	w := n.w
	var files []manifest.Path
	for _, p := range n.disk.below("") {
		if i := n.disk.at[p]; i.kind != manifest.Dir && !n.disk.tornIn(p) {
			files = append(files, p)
		}
	}
	slices.SortFunc(files, manifest.Compare)
	w.rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	files = files[:len(files)*(1+w.rng.IntN(4))/4]
	pace := []time.Duration{0, time.Millisecond, 200 * time.Millisecond, 3 * time.Second}[w.rng.IntN(4)]
	into := manifest.Path(fmt.Sprintf("m%d", w.rng.IntN(3)))
	what := w.rng.IntN(5)
	for k, p := range files {
		w.after(time.Duration(k)*pace, func() {
			i := n.disk.at[p]
			if n.root.away || n.gone || i == nil || i.kind == manifest.Dir {
				return
			}
			to := into + "/" + manifest.Path(fmt.Sprintf("f%d", k))
			switch {
			case what == 0, what == 1 && k%2 == 0:
				n.take(p)
			case what <= 2: // moved, alone or while others go
				n.move(p, to)
			case what == 3: // copied, and taken away
				if i.kind == manifest.File && i.writers == 0 {
					n.replace(to, i.text)
					w.after(w.some(2*time.Second), func() { n.take(p) })
				}
			case what == 4: // a directory instead, for a while
				n.take(p)
				n.makeDir(p)
				if w.chance(0.5) {
					w.after(w.some(5*time.Second), func() {
						n.take(p)
						n.replace(p, w.text())
					})
				}
			}
		})
	}
}

// move renames a file, where nothing is in the way.
func (n *node) move(p, to manifest.Path) {
	if d := n.disk; d.at[to] == nil && !d.tornIn(p) && d.mkdir(to.Dir(), n.wall()) {
		d.rename(p, to, n.wall())
		n.did(p, to)
	}
}
