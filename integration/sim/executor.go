package sim

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// post hands an event to the loop and carries out what it asks for.
func (n *node) post(ev syncer.Event) {
	for _, e := range n.loop.Handle(n.w.now, ev) {
		n.do(e)
	}
}

// do carries out an effect, sooner or later.
func (n *node) do(e syncer.Effect) {
	w := n.w
	switch e := e.(type) {
	case syncer.Look:
		for _, at := range e.Paths {
			n.later(5*time.Millisecond, func() { n.look(at) })
		}
	case syncer.Propose:
		n.offer(e)
	case syncer.Fetch:
		for _, ref := range e.Blobs {
			n.later(30*time.Millisecond, func() { n.fetch(ref.Digest) })
		}
	case syncer.Apply:
		n.later(5*time.Millisecond, func() { n.apply(e) })
	case syncer.Record:
		n.persist(job{updates: e.Updates})
	case syncer.Remember:
		w.trace("node %d notes %q: %+v", n.index, e.Path, e.Note)
		n.persist(job{note: &e})
	case syncer.Follow:
		n.persist(job{followed: e.Revision, looked: true})
	case syncer.Keep:
		n.store.flush()
		n.saved.asides = append(n.saved.asides, aside{e.Path, e.Aside.Lost})
	case syncer.Opened:
		w.trace("node %d: what was edited while its tree took no edits is held", n.index)
		n.persist(job{opened: true})
	case syncer.Joined:
		n.persist(job{joined: true})
	case syncer.Rescan:
		n.later(50*time.Millisecond, n.scan)
	case syncer.Wake:
		if n.wake.IsZero() || e.At.Before(n.wake) || n.wake.Before(w.now) {
			n.wake = e.At
			w.after(max(e.At.Sub(w.now), 0), n.mortal(func() {
				n.wake = time.Time{}
				n.post(syncer.Tick{})
			}))
		}
	default:
		w.fail("unknown effect %T", e)
	}
}

// fetch gets a blob from whoever has it, as far as this node knows them.
func (n *node) fetch(d manifest.Digest) {
	if n.bring(d) {
		n.post(syncer.Fetched{Have: []manifest.Digest{d}})
	} else {
		n.post(syncer.Fetched{Failed: []manifest.Digest{d}})
	}
}

func (n *node) bring(d manifest.Digest) bool {
	if n.store.has(d) {
		return true
	}
	for _, m := range n.machine.Members() {
		o := n.w.node(string(m.ID))
		if text, ok := o.store.blobs[d]; ok && n.w.connected(n, o) && (n.w.peace || !n.w.chance(0.05)) {
			n.store.put(text)
			return true
		}
	}
	return false
}

// scan hints at whatever differs from the ancestor.
func (n *node) scan() {
	if !n.rooted() {
		return
	}
	anc := n.loop.Ancestor()
	var hints []manifest.Path
	for _, p := range n.disk.below("") {
		if a, ok := anc.Get(p); !ok || !n.disk.at[p].unchanged(a) {
			hints = append(hints, p)
		}
	}
	anc.All(func(p manifest.Path, _ syncer.Ancestor) bool {
		if n.disk.at[p] == nil {
			hints = append(hints, p)
		}
		return true
	})
	n.later(30*time.Millisecond, func() {
		if !n.rooted() {
			return
		}
		if len(hints) > 0 {
			n.post(syncer.Hinted{Paths: hints})
		}
		n.post(syncer.Scanned{})
	})
}
