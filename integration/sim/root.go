package sim

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// root says whether the tree's directory is there, and whether the daemon
// works in it.
type root struct {
	away   bool // unmounted
	bare   bool // its marker is gone, and all else with it
	remake bool // a person wants a new marker
	lost   bool // as the daemon knows
}

// rooted is the look at the marker before and after everything that is done in
// the tree.
func (n *node) rooted() bool {
	r := &n.root
	if !r.lost && (r.away || r.bare) {
		n.loseRoot()
	}
	return !r.lost
}

func (n *node) loseRoot() {
	n.w.trace("node %d finds its root lost", n.index)
	n.root.lost = true
	n.later(time.Millisecond, func() { n.post(syncer.RootLost{Why: "no marker"}) })
	n.findRoot()
}

// foundRoot is the look at the start of a daemon.
func (n *node) foundRoot() {
	if n.root.lost = false; n.rooted() {
		n.post(syncer.RootBack{})
	}
}

// findRoot looks for a lost root until it is back.
func (n *node) findRoot() {
	n.w.after(500*time.Millisecond, n.mortal(func() {
		r := &n.root
		if r.away || r.bare && !r.remake {
			n.findRoot()
			return
		}
		fresh := r.bare
		if fresh { // nothing that was agreed on says anything about it
			n.saved.ancestors, n.saved.joined, n.saved.begun = map[manifest.Path]syncer.Ancestor{}, false, false
			n.saved.followed, n.saved.reached = 0, 0
			if !n.reader.read {
				n.reader = reader{began: syncer.State{Joiner: true}}
			}
		}
		n.w.trace("node %d finds its root, fresh %v", n.index, fresh)
		n.root = root{}
		n.post(syncer.RootBack{Fresh: fresh})
		n.do(syncer.Rescan{})
	}))
}

// unmount takes the root away for a while; now and then it comes back empty,
// and without its marker.
func (n *node) unmount() {
	if n.root.away {
		return
	}
	n.w.trace("node %d is unmounted", n.index)
	n.root.away = true
	if !n.root.bare && n.w.chance(0.3) {
		for _, p := range n.disk.below("") {
			n.w.ledger.excuse(n.disk.at[p], "its gateway's disk was emptied")
			n.disk.set(p, nil)
		}
		n.disk.flush()
		n.root.bare = true
	}
	n.w.after(n.w.some(6*time.Second), n.mount)
}

func (n *node) mount() { n.root.away = false }
