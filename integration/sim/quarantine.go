package sim

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// displaced is an inode that came out of the tree where leases do not work:
// somebody may still be writing to it.
type displaced struct {
	inode  *inode
	path   manifest.Path
	expect manifest.Entry
	stamp  syncer.Stamp // at the last look
	since  time.Time
}

func (n *node) displace(s syncer.Step, i *inode) {
	n.saved.displaced = append(n.saved.displaced, displaced{inode: i, path: s.Path, expect: s.Expect.Entry, stamp: i.stamp, since: n.w.now})
}

// judgeLater judges what was displaced, again and again.
func (n *node) judgeLater() {
	if n.leases {
		return
	}
	n.w.after(500*time.Millisecond, n.mortal(func() { n.judge(); n.judgeLater() }))
}

// judge ends what has come to rest: what is not as it was expected is kept
// aside.
func (n *node) judge() {
	var rest []displaced
	for _, d := range n.saved.displaced {
		switch {
		case d.inode.stamp != d.stamp:
			d.stamp, d.since = d.inode.stamp, n.w.now
			rest = append(rest, d)
		case n.w.now.Sub(d.since) < quietPeriod:
			rest = append(rest, d)
		case !d.inode.entry().SameContent(d.expect):
			n.store.put(d.inode.text)
			n.store.flush()
			n.saved.asides = append(n.saved.asides, aside{d.path, d.inode.entry()})
		}
	}
	n.saved.displaced = rest
}
