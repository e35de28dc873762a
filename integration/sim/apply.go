package sim

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// aside is content that lost a conflict and was recorded.
type aside struct {
	path manifest.Path
	lost manifest.Entry
}

// applying is one Apply under way.
type applying struct {
	n       *node
	steps   []syncer.Step
	results []syncer.StepResult
	updates []syncer.Update
}

// apply takes the steps one after another, each at its own moment, so that
// gateways and crashes come in between. What is to be kept aside is durable
// before the first of them.
func (n *node) apply(e syncer.Apply) {
	n.begin(e.Begun, func() { n.applyNow(e) })
}

func (n *node) applyNow(e syncer.Apply) {
	steps := e.Steps
	n.saved.reached = max(n.saved.reached, e.Reached)
	for _, s := range steps {
		if s.Aside != nil {
			n.rules.loses(n, s)
			n.store.flush()
			n.saved.asides = append(n.saved.asides, aside{s.Path, s.Aside.Lost})
		}
	}
	a := &applying{n: n, steps: steps}
	a.next()
}

func (a *applying) next() {
	if len(a.results) == len(a.steps) {
		a.n.later(2*time.Millisecond, a.finish)
		return
	}
	a.n.later(2*time.Millisecond, func() {
		s := a.steps[len(a.results)]
		res := syncer.StepResult{Path: s.Path}
		switch {
		case !a.n.rooted():
			res.Outcome = syncer.StepFailed
		case !a.n.sure() && !s.Ordered:
			res.Outcome = syncer.StepSurprise
		default:
			if d := a.n.late(); d > 0 {
				a.n.w.after(d, a.n.mortal(func() {
					res.Outcome = a.n.lateStep(s)
					a.did(s, res)
				}))
				return
			}
			res.Outcome = a.n.step(s)
		}
		a.did(s, res)
	})
}

// did takes the outcome of a step, and goes on.
func (a *applying) did(s syncer.Step, res syncer.StepResult) {
	if res.Outcome == syncer.StepDone {
		if s.Op != syncer.Remove {
			res.Ancestor = a.n.ancestor(s)
		}
		a.updates = append(a.updates, syncer.Update{Path: s.Path, Ancestor: res.Ancestor})
	}
	a.results = append(a.results, res)
	a.n.mishap()
	a.next()
}

// finish flushes, persists what is agreed on now, and answers then.
func (a *applying) finish() {
	n := a.n
	if !n.rooted() {
		a.updates = nil
		for k := range a.results {
			a.results[k].Outcome = syncer.StepFailed
		}
	} else {
		n.disk.flush()
	}
	n.persist(job{updates: a.updates, done: func() { n.post(syncer.Applied{Results: a.results}) }})
}

func (n *node) ancestor(s syncer.Step) *syncer.Ancestor {
	a := &syncer.Ancestor{Entry: s.New.Entry, Revision: s.New.Revision, Author: s.New.Author}
	if i := n.disk.at[s.Path]; i != nil {
		a.Stamp = i.seen()
		a.Stamp.Racy = s.Op == syncer.SetMode && n.racy(i)
	}
	return a
}

// step does what one step says, as the executor would.
func (n *node) step(s syncer.Step) syncer.StepOutcome {
	d := n.disk
	i := d.at[s.Path]
	n.rules.step(n, s)
	if !d.isDir(s.Path.Dir()) {
		if s.Op == syncer.Remove {
			return syncer.StepDone
		}
		return syncer.StepSurprise
	}
	if s.Op == syncer.Remove && i == nil {
		return syncer.StepDone
	}
	if s.Op == syncer.PutDir && i != nil && i.kind == manifest.Dir {
		d.chmod(i, s.New.Entry.Mode, n.wall())
		return syncer.StepDone
	}
	if i != nil && i.kind == manifest.File && i.entry().Same(s.New.Entry) && i.stamp != s.Expect.Stamp && i.writers == 0 {
		i.sync()
		return syncer.StepDone // already there
	}
	if o := n.expected(s, i); o != syncer.StepDone {
		return o
	}
	n.rules.displaces(n, s, i)
	n.w.trace("node %d step %v %q at %d", n.index, s.Op, s.Path, s.New.Revision)
	if s.Op == syncer.SetMode {
		d.chmod(i, s.New.Entry.Mode, n.wall())
		i.sync()
		d.place(s.Path)
		n.rules.placed(n, s.Path)
		return syncer.StepDone
	}
	if i != nil && i.kind == manifest.File && !n.leases {
		n.displace(s, i)
	}
	n.place(s)
	return syncer.StepDone
}

// expected tells by StepDone that the disk holds what the step expects: by its
// stamp, or by its content where the stamp differs.
func (n *node) expected(s syncer.Step, i *inode) syncer.StepOutcome {
	e := s.Expect.Entry
	switch {
	case i == nil && e.Absent():
		return syncer.StepDone
	case i == nil, i.kind != e.Kind:
		return syncer.StepSurprise
	case i.kind == manifest.Dir:
		if in := n.disk.below(s.Path); len(in) > 0 {
			n.later(time.Millisecond, func() { n.post(syncer.Hinted{Paths: in}) })
			return syncer.StepSurprise
		}
		return syncer.StepDone
	case n.leases && i.writers > 0:
		return syncer.StepBusy
	case i.mode != e.Mode && i.kind == manifest.File, int64(len(i.text)) != e.Size:
		return syncer.StepSurprise
	case i.kind == manifest.File && !s.Expect.Stamp.Racy && i.stamp == s.Expect.Stamp:
		return syncer.StepDone
	case manifest.DigestOf([]byte(i.text)) != e.Digest:
		return syncer.StepSurprise
	}
	return syncer.StepDone
}

// place swaps in what is committed; a symlink's content is in the log.
func (n *node) place(s syncer.Step) {
	d, e := n.disk, s.New.Entry
	var i *inode
	switch s.Op {
	case syncer.PutFile:
		text, ok := n.store.blobs[e.Digest]
		if !ok {
			n.w.fail("node %d materializes %q without its content", n.index, s.Path)
		}
		i = d.make(e.Kind, e.Mode, text, n.wall())
		i.flushed = text
		i.stamp.MTime += int64(d.inos%1e6) + 1 // never on a tick: no later write repeats it
	case syncer.PutSymlink:
		i = d.make(e.Kind, e.Mode, e.Target, n.wall())
	case syncer.PutDir:
		i = d.make(e.Kind, e.Mode, "", n.wall())
	case syncer.Remove:
	default:
		n.w.fail("unexpected op %d", s.Op)
	}
	d.set(s.Path, i)
	d.place(s.Path)
	n.rules.placed(n, s.Path)
	delete(n.rules.shut, s.Path)
	n.mine(s.Path)
}
