package sim

import (
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// brake is what the promise of the mass-deletion guard says of the log, whatever
// the loops count: no node that no person has spoken to takes more files out of the
// tree within a minute than the limit says, net of moves, or all of them.
type brake struct {
	sizes  []size              // of the tree, after each commit of the last two minutes
	flows  map[string][]flow   // of files, by the node that brought them about, of the last minute
	offers map[string][]coming // of new files, by node: what is about to come counts as there
}

type size struct {
	at    time.Time
	files int
}

// flow is a file that came (+1) or went (-1), deleted or for a directory in its place.
type flow struct {
	at      time.Time
	what    content
	files   int
	deleted bool
}

type coming struct {
	at   time.Time
	path manifest.Path
	what content
}

const (
	brakeWindow = time.Minute
	// brakeLate is for how long a deletion that was judged may be on its way, while
	// others delete what it was judged to leave.
	brakeLate = 30 * time.Second
)

func newBrake() brake {
	return brake{flows: map[string][]flow{}, offers: map[string][]coming{}}
}

// offered notes the new files that a node offers.
func (b *brake) offered(now time.Time, id string, changes []manifest.Change) {
	for _, c := range changes {
		if c.New.IsLeaf() {
			b.offers[id] = append(b.offers[id], coming{now, c.Path, contentOf(c.New)})
		}
	}
}

// take checks a commit that was seen on a node's disk.
func (b *brake) take(w *world, c manifest.Commit) {
	before := 0
	if len(b.sizes) > 0 {
		before = b.sizes[len(b.sizes)-1].files
	}
	after := before
	var deleted []content
	n := w.node(c.ID.Node)
	for _, ch := range c.Changes {
		was, is := ch.Old.Entry.IsLeaf(), ch.New.IsLeaf()
		switch {
		case is && !was:
			after++
			b.flows[n.id] = append(b.flows[n.id], flow{at: w.now, what: contentOf(ch.New), files: 1})
		case was && !is:
			after--
			b.flows[n.id] = append(b.flows[n.id], flow{w.now, contentOf(ch.Old.Entry), -1, ch.New.Absent()})
			if ch.New.Absent() {
				deleted = append(deleted, contentOf(ch.Old.Entry))
			}
		}
	}
	b.sizes = append(b.sizes, size{w.now, after})
	if len(deleted) > 0 && n.braked() {
		b.check(w, n, deleted, after)
	}
}

// counted tells whether what a node offered counts by what the log says. Where another
// node's commit put the same content in the same place first, as when both made one
// move, it stands for the node's own.
func (b *brake) counted(w *world, n *node, o coming) bool {
	c, _ := w.oracle.view().Manifest.Get(o.path)
	return c.Entry.IsLeaf() && (c.Author == n.id || contentOf(c.Entry) != o.what)
}

// braked tells whether the brake's promise can be asked of a node: a person's word
// ends it; a clock that was set, or history that was trimmed, ends the minute with a restart.
func (n *node) braked() bool {
	return n.on == nil && !n.rules.spoken && n.skew == 0 && n.w.opt.Trims == 0 && !n.gone
}

// check looks at the minute that ends with a commit that has deleted something; what
// only moved, or became a directory, is not held.
func (b *brake) check(w *world, n *node, deleted []content, after int) {
	b.sizes = slices.DeleteFunc(b.sizes, func(s size) bool { return w.now.Sub(s.at) > 2*brakeWindow })
	b.flows[n.id] = slices.DeleteFunc(b.flows[n.id], func(f flow) bool { return w.now.Sub(f.at) >= brakeWindow })
	net, gone := map[content]int{}, 0
	unmoved := map[content]int{} // of what was deleted: a place may have been its, or that of what became a directory
	for _, f := range b.flows[n.id] {
		net[f.what] -= f.files
		if f.files > 0 || f.deleted {
			unmoved[f.what] -= f.files
		}
	}
	most, others := 0, false // others have deleted something meanwhile
	for _, s := range b.sizes {
		most = max(most, s.files)
	}
	for id, flows := range b.flows {
		others = others || id != n.id && slices.ContainsFunc(flows, func(f flow) bool { return f.files < 0 && w.now.Sub(f.at) < brakeLate })
	}
	offered := map[manifest.Path]bool{}
	for _, o := range b.offers[n.id] {
		if w.now.Sub(o.at) < brakeWindow && !b.counted(w, n, o) {
			if !offered[o.path] {
				net[o.what]-- // a move, of which this is the place
				unmoved[o.what]--
			}
			offered[o.path] = true
		}
	}
	for _, files := range net {
		gone += max(0, files)
	}
	if !slices.ContainsFunc(deleted, func(what content) bool { return unmoved[what] > 0 }) {
		return
	}
	limit := w.opt.Limit
	switch before := max(most, after+gone) + len(offered); {
	case gone > limit.Count && gone*100 > before*limit.Percent:
		w.fail("NoSurpriseDelete: node %d takes %d of %d files away within a minute", n.index, gone, before)
	case after == 0 && len(offered) == 0 && !others:
		w.fail("NoSurpriseDelete: node %d leaves the tree empty", n.index)
	}
}
