package sim

import (
	"fmt"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// mount models one directory that several nodes have as their tree: one disk, no
// leases, looks that may be a moment old, and a steward whose change the nodes
// hear of one after another. A steward that was replaced may finish, much
// later, a step that it had begun: nothing fences it.
type mount struct {
	id      string
	nodes   []*node
	steward *node
	epoch   uint64
	named   int                      // the log's length when the steward was named, which it says
	shadows map[manifest.Path]shadow // what stood where before its last change
}

type shadow struct {
	was *inode
	at  time.Time // of the change
	by  *node     // who sees his own changes at once
}

const (
	// cacheAge is how old a look may be that is no stat.
	cacheAge = 100 * time.Millisecond
	// stewardSilent is after which the next steward is named.
	stewardSilent = 4 * time.Second
)

// mountAll gives some nodes one disk.
func (w *world) mountAll(nodes []*node) {
	m := &mount{id: "m-sim", nodes: nodes, shadows: map[manifest.Path]shadow{}}
	w.mount = m
	first := nodes[0]
	first.disk.changed = func(p manifest.Path, was *inode) { m.shadows[p] = shadow{was, w.now, nil} }
	for _, n := range nodes {
		n.on, n.leases, n.disk, n.rules.by, n.rules.lately = m, false, first.disk, first.rules.by, first.rules.lately
	}
	m.watch(w)
}

// watch names stewards, as a leader does: whoever is down for long is replaced,
// and now and then one that lives, which the leader does not hear.
func (m *mount) watch(w *world) {
	s := m.steward
	down := s == nil || !s.alive && w.now.Sub(s.downAt) >= stewardSilent
	if w.leader(m.nodes[0]) != nil && (down || !w.peace && w.chance(0.02)) {
		for _, n := range m.nodes {
			if n.alive && n != s && !n.gone {
				m.steward = n
				m.epoch++
				m.named = len(w.log)
				w.trace("node %d is the steward, epoch %d", n.index, m.epoch)
				for _, o := range m.nodes {
					o.hearPlaceSoon()
				}
				break
			}
		}
	}
	w.after(time.Second, func() { m.watch(w) })
}

// hearPlaceSoon tells it as a daemon's placer does, which hears of it together with
// the commits. Now and then it is telling the log something of its own just then,
// which takes some seconds at most (syncer.sayWithin); "later" would be half a minute.
func (n *node) hearPlaceSoon() {
	most := time.Second
	if !n.w.peace && n.w.chance(0.05) {
		most = 5 * time.Second
	}
	n.w.after(n.w.some(most), n.mortal(n.hearPlace))
}

// hearPlace tells a node's loop who is the steward now.
func (n *node) hearPlace() {
	if n.on == nil {
		return
	}
	if n.applied < n.on.named { // who has not read the log up to there cannot know
		n.hearPlaceSoon()
		return
	}
	p := syncer.Placed{Mount: n.on.id, Epoch: n.on.epoch, Acting: n.on.steward == n, Known: true}
	n.acting = p.Acting
	n.post(p)
}

// sure is the look at the log and at the epoch beside the tree before a step.
func (n *node) sure() bool { return n.on == nil || n.acting && n.on.steward == n }

// late tells for how long a step that was looked into is still not done: a
// machine that sleeps in between.
func (n *node) late() time.Duration {
	if n.on == nil || n.w.peace || !n.w.chance(0.01) {
		return 0
	}
	return n.w.some(15 * time.Second)
}

// stale returns what a look sees: mostly what stands there, now and then what
// stood there a moment ago.
func (n *node) stale(p manifest.Path) *inode {
	i := n.disk.at[p]
	if n.on == nil || !n.w.chance(0.3) {
		return i
	}
	if s, ok := n.on.shadows[p]; ok && s.by != n && n.w.now.Sub(s.at) < cacheAge {
		return s.was
	}
	return i
}

// mine says that this machine has changed what stands at a path: it sees that
// at once.
func (n *node) mine(p manifest.Path) {
	if n.on != nil {
		s := n.on.shadows[p]
		s.by = n
		n.on.shadows[p] = s
	}
}

// former tells whether a path held some content before.
func (n *node) former(p manifest.Path, e manifest.Entry) bool {
	for _, c := range n.machine.History(treeName, 0, 0) {
		for _, ch := range c.Changes {
			if ch.Path == p && (ch.New.SameContent(e) || ch.Old.Entry.SameContent(e)) {
				return true
			}
		}
	}
	return false
}

// lateStep does what a step says without a further look. What is displaced so
// is lost, as the guarantees say, unless it is in the log.
func (n *node) lateStep(s syncer.Step) syncer.StepOutcome {
	n.w.trace("node %d wakes up and does step %v %q at %d", n.index, s.Op, s.Path, s.New.Revision)
	if !n.disk.isDir(s.Path.Dir()) || n.disk.isDir(s.Path) || s.Op != syncer.PutFile {
		return syncer.StepSurprise
	}
	n.w.ledger.excuse(n.disk.at[s.Path], fmt.Sprintf("written over by a late steward, node %d", n.index))
	n.place(s)
	w := writtenOf(n.disk.at[s.Path].entry())
	note(n.disk.late, s.Path, w)
	for _, o := range n.on.nodes {
		o.rules.lateOver(s.Path, w)
	}
	return syncer.StepDone
}
