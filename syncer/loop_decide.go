package syncer

import (
	"github.com/gatesync/gatesync/manifest"
)

// decideReady decides all paths that may go on, and then starts what follows:
// judged deletions, batches to offer, steps to apply.
func (l *Loop) decideReady() {
	if !l.mayAct() {
		clear(l.ready)
		return
	}
	if l.state.Joiner && !l.state.Begun && l.begun == nil {
		from := l.view.Revision
		l.begun = &from
	}
	for len(l.ready) > 0 {
		// Parents come before what lies below them; what a decision wakes is
		// decided in the next round.
		round := l.ready.sorted()
		clear(l.ready)
		for _, p := range round {
			if w := l.works.get(p); w != nil {
				l.decide(w)
			}
		}
	}
	l.stageRemovals()
	l.judgeDeletes()
	l.offerBatches()
	l.applySteps()
}

// disk is what stands at w's path, as far as anybody has seen.
func (l *Loop) disk(w *work, a Ancestor) (manifest.Entry, Stamp) {
	if w.phase == presumed {
		return a.Entry, a.Stamp
	}
	if w.obs.Sight == Seen {
		return w.obs.Entry, w.obs.Stamp
	}
	return manifest.Entry{}, Stamp{}
}

// decide compares the three views of one path and starts what ends their
// difference.
func (l *Loop) decide(w *work) {
	w.repair = false
	switch w.phase {
	case awaiting:
		if l.view.Revision < w.awaits || !l.conclude(w) {
			return
		}
	case settled:
	case presumed:
		if _, noted := l.notes[w.path]; noted {
			l.lookNow(w) // it is known not to be as the ancestor says
			return
		}
	case waiting, staged:
		w.phase = w.seenPhase()
	default:
		return
	}
	if w.phase == settled && w.obs.Sight == Unfit {
		l.note(w.path, Note{Guard: GuardUnfit, Why: w.obs.Why})
		l.finish(w)
		return
	}
	a, _ := l.anc.Get(w.path)
	c, _ := l.view.Manifest.Get(w.path)
	d, stamp := l.disk(w, a)
	verdict := manifest.Reconcile(manifest.Views{
		Ancestor: a.node(), Disk: d, Committed: c, Since: w.since(), Own: w.own(a, c) || w.ownOnMount(c),
	})
	if l.shared() && l.believe(w, verdict, a, d, c) {
		return
	}
	if verdict == manifest.Materialize && l.overtaken(w, a, c) {
		l.catchUp(w, c)
		return
	}
	switch verdict {
	case manifest.Nothing:
		w.pending = 0
		if w.phase == settled && stamp != a.Stamp && !d.Absent() {
			// Written again, or touched: the content may be a new one's, unflushed.
			a.Stamp = stamp
			l.agree(w, a, true)
		}
		l.forgetUnless(w.path, d)
		l.finish(w)
	case manifest.Agree:
		w.pending = 0
		l.agree(w, Ancestor{Entry: c.Entry, Revision: c.Revision, Author: c.Author, Stamp: stamp}, w.phase == settled && (!l.shared() || w.witnessed))
		l.forgetUnless(w.path, manifest.Entry{})
		l.finish(w)
	case manifest.Materialize:
		l.follow(w, a, d, c, "")
	case manifest.Collide:
		if l.undecided(w, a, d, c) {
			l.finish(w)
			return
		}
		if n := l.notes[w.path]; n.Guard == GuardRecords && l.rulings[w.path] == Approve {
			l.offer(w, a, d, c)
			return
		}
		if l.outdated(w, a, d) {
			l.follow(w, a, d, c, "")
			return
		}
		l.follow(w, a, d, c, l.lost("another node's change was committed first"))
	case manifest.Offer:
		l.offer(w, a, d, c)
	}
}

// overtaken tells whether what is committed was captured on this very disk, which
// has gone back since to what it was before: the answer to the offer was lost.
// What a root of before held says nothing about this one, nor does what was
// committed before this run: the disk may have been restored with the records.
func (l *Loop) overtaken(w *work, a Ancestor, c manifest.Node) bool {
	return !l.shared() && !l.state.Joiner && !l.otherRoot && l.rulings[w.path] != Restore && w.own(a, c) && w.chain[0].live
}

// catchUp has one's own commit become the ancestor of a disk that has moved on,
// as if its answer had come: what stands there now is the next edit.
func (l *Loop) catchUp(w *work, c manifest.Node) {
	l.agree(w, Ancestor{Entry: c.Entry, Revision: c.Revision, Author: c.Author, Stamp: Stamp{Racy: true}}, true)
	w.pending = 0
	l.lookNow(w)
}

// outdated tells whether what a joiner has, be it one because its root is a copy,
// is what the path held in an earlier revision: history keeps it. Who is none any
// more (because all is decided, or because another node of the mount knows the disk)
// may still be about to bring it up to date.
func (l *Loop) outdated(w *work, a Ancestor, d manifest.Entry) bool {
	return (l.state.Joiner || l.joined) && !l.state.Lost && !w.witnessed && a.Entry.Absent() && l.former(w, d)
}

// former tells whether the path held this file or symlink in an earlier revision.
func (l *Loop) former(w *work, d manifest.Entry) bool {
	return l.cfg.Former != nil && d.IsLeaf() && l.cfg.Former(w.path, d)
}

// seenPhase is the phase that tells where the disk's state is known from.
func (w *work) seenPhase() phase {
	if w.obs.Sight == 0 {
		return presumed
	}
	return settled
}

// agree advances the ancestor; an absent entry removes it.
func (l *Loop) agree(w *work, a Ancestor, flush bool) {
	u := Update{Path: w.path, Flush: flush, News: w.news && l.shared() && !w.witnessed}
	if !a.Entry.Absent() {
		u.Ancestor = &a
	}
	l.emit(Record{Updates: []Update{u}})
	l.setAncestor(w, u.Ancestor)
}

// setAncestor moves the ancestor in memory, and forgets the revisions that it
// has caught up with.
func (l *Loop) setAncestor(w *work, a *Ancestor) {
	var rev manifest.Revision
	if a == nil {
		l.anc.Delete(w.path)
		for _, k := range w.chain {
			if k.entry.Absent() {
				rev = k.revision
			}
		}
	} else {
		l.anc.Set(w.path, *a)
		rev = a.Revision
	}
	for len(w.chain) > 0 && w.chain[0].revision <= rev {
		w.chain = w.chain[1:]
	}
}

// finish ends the work of a path that is in agreement (or held), and lets go on
// who waited for it.
func (l *Loop) finish(w *work) {
	delete(l.rulings, w.path)
	l.unqueue(w)
	l.wakeAround(w)
	if w.again {
		w.rested()
		*w = work{path: w.path, pending: w.pending, chain: w.chain, witnessed: w.witnessed && !w.spent && !w.sighted, unheard: w.unheard, begun: w.begun}
		l.lookNow(w)
		return
	}
	l.works.drop(w.path)
}

// wakeAround has those decided anew that wait for w's path: directories above
// it that wait to be removed, and paths directly below it. Where w turned out
// to be no directory, what waits below it cannot be there any more.
func (l *Loop) wakeAround(w *work) {
	for dir := w.path.Dir(); dir != ""; dir = dir.Dir() {
		if above := l.works.get(dir); above != nil && above.phase == waiting {
			l.ready.add(dir)
		}
	}
	noDir := w.phase == settled && !w.obs.Entry.IsDir()
	l.works.under(w.path, func(below *work) bool {
		switch {
		case below.phase != waiting || below.path.Dir() != w.path:
		case noDir:
			l.lookNow(below)
		default:
			l.ready.add(below.path)
		}
		return true
	})
}

// wait parks a work until another path goes on; the timer is a safety net.
func (l *Loop) wait(w *work) {
	w.phase = waiting
	l.decideLater(w, waitingDelay)
}

// offer prepares the disk's entry for the log, unless a guard holds it.
func (l *Loop) offer(w *work, a Ancestor, d manifest.Entry, c manifest.Node) {
	if l.refill && l.state.Joiner && a.Entry.Absent() {
		l.rulings[w.path] = Restore // for this path, however often it has to be tried
	}
	if l.rulings[w.path] == Restore {
		l.follow(w, a, d, c, l.lost("restored to what is committed"))
		return
	}
	if l.evicted(w.path) {
		l.follow(w, a, d, c, "its directory was replaced by another node")
		return
	}
	if w.needed && !d.IsDir() {
		// Something committed has to stand below: the directory comes back.
		l.follow(w, a, d, c, "another node's change was committed below it")
		return
	}
	if l.rulings[w.path] != Approve {
		if l.holds(w, a, d, c) {
			l.finish(w)
			return
		}
		if l.refuses(w, a, d, c) {
			return
		}
	}
	if d.Absent() {
		switch {
		case l.removals.has(w.path): // judged already
		case l.rulings[w.path] == Approve:
			l.removals.add(w.path)
		default:
			l.brake.add(w.path, l.now)
		}
		return
	}
	l.unqueue(w)
	if l.enqueue(w, d, c) && (a.Entry.Absent() || a.Entry.IsDir()) {
		l.brake.appeared(w.path, d, l.now, l.cfg.Window)
	}
}

// enqueue has d offered with the next batch, after the directories that it
// needs. It tells false where d has to wait for one, or is held with it.
func (l *Loop) enqueue(w *work, d manifest.Entry, c manifest.Node) bool {
	if parent := w.path.Dir(); parent != "" && !l.view.Manifest.Entry(parent).IsDir() {
		if !l.wantDir(parent) {
			l.note(w.path, Note{Guard: l.notes[parent].Guard, Why: "its directory is held", Entry: d, Base: c.Revision})
			l.finish(w)
			return false
		}
		if !l.queue.has(parent) {
			l.wait(w)
			return false
		}
	}
	if l.big(w) {
		l.bigQueue.add(w.path)
	} else {
		l.queue.add(w.path)
	}
	return true
}

// wantDir asks for a directory to be offered, because something below it is to
// be. It tells false where the directory is held back.
func (l *Loop) wantDir(dir manifest.Path) bool {
	if n, held := l.notes[dir]; held && n.Guard.asks() && l.rulings[dir] != Approve {
		return false
	}
	w := l.works.get(dir)
	if w == nil {
		w = l.works.ensure(dir)
		w.wanted = true
		l.lookNow(w)
		return true
	}
	if !w.wanted {
		w.wanted = true
		l.ready.add(dir)
	}
	return true
}

// follow brings the disk to what is committed. why tells that the disk's
// content lost and has to be kept aside; "": nothing is lost.
func (l *Loop) follow(w *work, a Ancestor, d manifest.Entry, c manifest.Node, why string) {
	l.unqueue(w)
	if err := c.Entry.ValidateAt(w.path); err != nil && !c.Entry.Absent() {
		// The machine refuses such entries. Whatever let this one through, it
		// does not come to a disk, and it holds nobody up.
		l.note(w.path, Note{Guard: GuardUnfit, Why: "what is committed there is no entry for a tree: " + err.Error()})
		l.finish(w)
		return
	}
	switch {
	case c.Entry.Absent() && d.IsDir() && w.wanted && !l.evicted(w.path):
		// Removed elsewhere, while something new stands in it here.
		l.enqueue(w, d, c)
		return
	case c.Entry.Absent() && d.Absent():
		l.agree(w, Ancestor{}, false)
		l.finish(w)
		return
	case c.Entry.Absent() && d.IsDir() && l.heldIn(w.path) && !l.evicted(w.path):
		// Removed elsewhere, while something stands in it that is held back here.
		l.agree(w, Ancestor{}, false)
		l.hold(w, GuardLeft, "what is held back stands in it", d)
		return
	case d.IsDir() && !c.Entry.IsDir() && (l.steward() || l.rulings[w.path] == Restore):
		w.step = l.step(w, a, d, c, "")
		l.wait(w)
		l.leaving.add(w.path)
		l.wakeEvicted(w.path)
		if !c.Entry.Absent() {
			l.wakeHeld(w.path)
		}
		return
	}
	if !l.steward() && l.rulings[w.path] != Restore {
		l.doubt(w) // it is the steward's to write
		return
	}
	if parent := w.path.Dir(); parent != "" && !c.Entry.Absent() && !l.dirComes(parent) {
		l.needDir(parent)
		l.wait(w)
		return
	}
	w.step = l.step(w, a, d, c, why)
	if w.step.Op == PutFile {
		l.fetch(w, c.Entry.Blob())
		return
	}
	l.stage(w)
}

// dirComes tells whether dir is a directory on disk, or will be by a step that
// goes first.
func (l *Loop) dirComes(dir manifest.Path) bool {
	w := l.works.get(dir)
	if n, noted := l.notes[dir]; noted && (n.Guard == GuardMassDelete || n.Guard.edit() && !n.Entry.IsDir()) && (w == nil || w.phase != staged && w.phase != applying) {
		return false // it is not there, which is held
	}
	if w == nil || w.phase == presumed {
		a, _ := l.anc.Get(dir)
		return a.Entry.IsDir()
	}
	if w.phase == staged || w.phase == applying {
		return w.step.Op == PutDir
	}
	return w.phase == settled && w.obs.Entry.IsDir() && !l.leaving.has(dir)
}

// needDir asks for a committed directory to be materialized, because something
// below it is to be.
func (l *Loop) needDir(dir manifest.Path) {
	w := l.works.get(dir)
	if w == nil {
		w = l.works.ensure(dir)
		w.needed = true
		l.lookNow(w)
		return
	}
	if !w.needed {
		w.needed = true
		l.ready.add(dir)
	}
}

// evicted tells whether p has to go aside, because a directory above it is
// committed as something that holds nothing, and is about to become that.
// (Where such a directory is merely gone, what is new in it brings it back.)
func (l *Loop) evicted(p manifest.Path) bool {
	for dir := p.Dir(); dir != ""; dir = dir.Dir() {
		e := l.view.Manifest.Entry(dir)
		if e.Absent() {
			continue
		}
		w := l.works.get(dir)
		return !e.IsDir() && w != nil && (l.leaving.has(dir) || w.phase == fetching || w.phase == staged || w.phase == applying)
	}
	return false
}

// wakeEvicted has those decided anew that wait below dir for it to be offered.
func (l *Loop) wakeEvicted(dir manifest.Path) {
	l.works.under(dir, func(w *work) bool {
		if w.phase == waiting && !l.leaving.has(w.path) && l.evicted(w.path) || l.queue.has(w.path) {
			l.ready.add(w.path)
		}
		return true
	})
}

// wakeHeld has everything looked at that is held back below dir, because
// something else takes the directory's place: it goes aside.
func (l *Loop) wakeHeld(dir manifest.Path) {
	held := pathSet{}
	for p, n := range l.notes {
		if p.Under(dir) && (!n.Entry.Absent() || n.Guard == GuardJoiner) && l.works.get(p) == nil {
			held.add(p)
		}
	}
	for _, p := range held.sorted() {
		l.hint(p)
	}
}

// step describes how the disk gets from d to c.
func (l *Loop) step(w *work, a Ancestor, d manifest.Entry, c manifest.Node, why string) *Step {
	s := &Step{Path: w.path, New: c, Ordered: l.rulings[w.path] == Restore, Repair: w.repair}
	if w.phase == presumed {
		s.Expect = a
	} else if !d.Absent() {
		s.Expect = Ancestor{Entry: d, Stamp: w.obs.Stamp}
	}
	if s.Op = opFor(d, c.Entry); s.Op == Remove {
		s.New.Revision = l.view.Revision
	}
	if why != "" && d.IsLeaf() {
		s.Aside = &Aside{Lost: d, Winner: c.Revision, Why: why}
	}
	return s
}

// opFor is what brings a path from one entry to another.
func opFor(from, to manifest.Entry) Op {
	switch {
	case to.Absent():
		return Remove
	case to.IsDir():
		return PutDir
	case to.Kind == manifest.Symlink:
		return PutSymlink
	case from.SameContent(to):
		return SetMode
	}
	return PutFile
}
