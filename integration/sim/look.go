package sim

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// What the executor has as constants of its own.
const (
	racyWindow  = 20 * time.Millisecond
	quietPeriod = time.Second
)

// resting is a file that was seen where leases do not work.
type resting struct {
	stamp syncer.Stamp
	since time.Time
}

// look finds out what stands at a path.
func (n *node) look(at syncer.LookAt) {
	obs := n.observe(at)
	n.w.trace("node %d looks at %q: %d %s", n.index, at.Path, obs.Sight, obs.Entry)
	n.rules.looked(n, obs)
	// The observation may be late: what happens until it is posted comes with
	// a hint of its own, or with the next scan.
	n.later(3*time.Millisecond, func() {
		if !n.rooted() {
			obs = syncer.Observation{Path: at.Path, Sight: syncer.Busy}
		}
		n.post(syncer.Looked{Observations: []syncer.Observation{obs}})
	})
}

func (n *node) observe(at syncer.LookAt) syncer.Observation {
	i := n.stale(at.Path)
	n.rules.saw[at.Path] = i != nil && i.edit
	obs := syncer.Observation{Path: at.Path, Sight: syncer.Gone}
	switch {
	case !n.rooted(), !n.w.peace && n.w.chance(0.02):
		obs.Sight = syncer.Busy
		return obs
	case i == nil:
		return obs
	}
	obs.Sight, obs.Entry, obs.Stamp = syncer.Seen, i.entry(), i.seen()
	switch {
	case i.kind != manifest.File:
	case i.unchanged(at.Was) && (n.on == nil || at.Want.Absent() || at.Want.Same(at.Was.Entry)):
		obs.Entry = at.Was.Entry
	case n.on != nil && at.Want.Kind == manifest.File && i.entry().Same(at.Want): // whoever has it open
		obs.Stamp.Racy = true
	case n.leases && i.writers > 0:
		obs.Sight = syncer.Busy
	case !n.leases && n.rests(at.Path, i) > 0:
		obs.Sight, obs.Rest = syncer.Busy, n.rests(at.Path, i)
	default:
		obs.Stamp.Racy = n.racy(i)
		n.store.put(i.text)
	}
	return obs
}

// unchanged is what a scan and a look tell without reading.
func (i *inode) unchanged(a syncer.Ancestor) bool {
	if i.kind != a.Entry.Kind || i.mode != a.Entry.Mode && i.kind != manifest.Symlink {
		return false
	}
	return i.kind == manifest.Dir || !a.Stamp.Racy && i.stamp == a.Stamp
}

// racy tells whether a further write may hide behind the same times.
func (n *node) racy(i *inode) bool { return n.wall()-i.stamp.CTime < int64(racyWindow) }

// rests tells how much longer a file must not change.
func (n *node) rests(p manifest.Path, i *inode) time.Duration {
	r, ok := n.rest[p]
	if !ok || r.stamp != i.stamp {
		n.rest[p] = resting{i.stamp, n.w.now}
		return quietPeriod
	}
	return quietPeriod - n.w.now.Sub(r.since)
}
