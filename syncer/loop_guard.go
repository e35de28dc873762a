package syncer

import (
	"github.com/gatesync/gatesync/manifest"
)

// holds tells whether a guard keeps the disk's edit back: an earlier note that
// still is about this state, or the joiner's rule.
func (l *Loop) holds(w *work, a Ancestor, d manifest.Entry, c manifest.Node) bool {
	n, noted := l.notes[w.path]
	if noted {
		switch n.Guard {
		case GuardUnread, GuardUnreadLost: // of what stands below
		case GuardJoiner, GuardRecords:
			if !d.Absent() {
				l.note(w.path, Note{Guard: n.Guard, Why: n.Why, Entry: d, Base: c.Revision})
				return true
			}
		case GuardWrite, GuardRewritten:
			if n.Guard == GuardWrite && l.cfg.Edits == manifest.EditsRepaired {
				break
			}
			l.note(w.path, Note{Guard: n.Guard, Why: n.Why, Entry: d, Base: c.Revision})
			return true
		case GuardMassDelete, GuardRefused, GuardLeft:
			if n.Guard != GuardLeft && l.cfg.Edits == manifest.EditsRepaired {
				break
			}
			if c.Entry.IsDir() && n.Guard == GuardMassDelete && !l.held(w.path) {
				break // it was held only for what stood in it
			}
			if n.Guard == GuardLeft && w.wanted {
				break // something in it is to be offered
			}
			if n.Entry.Same(d) && n.Base == c.Revision {
				return true
			}
		}
		l.forget(w.path)
	}
	if l.undecided(w, a, d, c) {
		return true
	}
	unknown := l.state.Joiner && (!l.cfg.Adopt || l.closed()) || l.unreadAbove(w.path) != ""
	if unknown && a.Entry.Absent() && !d.Absent() {
		l.note(w.path, Note{
			Guard: GuardJoiner, Why: "stood here before this node joined the cluster", Entry: d, Base: c.Revision,
		})
		return true
	}
	return false
}

// holdUnseen keeps for later what a joiner's rule says of a path that cannot be
// looked at now, because somebody keeps it busy.
func (l *Loop) holdUnseen(w *work) {
	if _, had := l.anc.Get(w.path); had {
		return
	}
	if l.refill {
		l.rulings[w.path] = Restore
		return
	}
	c, _ := l.view.Manifest.Get(w.path)
	above := l.unreadAbove(w.path)
	if l.cfg.Adopt && !l.closed() && !l.state.Lost && above == "" {
		return
	}
	if l.state.Lost || above == GuardUnreadLost {
		l.note(w.path, Note{Guard: GuardRecords, Why: "it could not be looked at, and this node's records of the tree were damaged", Base: c.Revision})
		return
	}
	l.note(w.path, Note{Guard: GuardJoiner, Why: "stood here before this node joined the cluster", Base: c.Revision})
}

// hold notes what a guard keeps back and ends the work on it.
func (l *Loop) hold(w *work, g Guard, why string, d manifest.Entry) {
	c, _ := l.view.Manifest.Get(w.path)
	l.note(w.path, Note{Guard: g, Why: why, Entry: d, Base: c.Revision})
	l.unqueue(w)
	w.pending = 0
	l.finish(w)
}

func (l *Loop) note(p manifest.Path, n Note) {
	n.Time = l.now.UnixNano()
	if old, ok := l.notes[p]; ok {
		n.Time = old.Time
		if old == n {
			return
		}
	}
	l.notes[p] = n
	if l.careful.drop(p); n.Guard.unread() {
		l.careful.add(p)
	}
	l.emit(Remember{Path: p, Note: &n})
}

func (l *Loop) forget(p manifest.Path) {
	n, ok := l.notes[p]
	if !ok || l.careful.has(p) {
		return
	}
	delete(l.notes, p)
	l.emit(Remember{Path: p})
	for dir := p.Dir(); dir != ""; dir = dir.Dir() {
		switch l.notes[dir].Guard { // it may have been held, or left behind, only for p
		case GuardMassDelete:
			if n.Guard == GuardMassDelete || n.Guard.edit() {
				l.hint(dir)
			}
		case GuardLeft:
			l.rulings[dir] = Restore
			l.hint(dir)
		}
	}
}

// heldIn tells whether anything stands below dir that a guard holds back.
func (l *Loop) heldIn(dir manifest.Path) bool {
	for p, n := range l.notes {
		if p.Under(dir) && (!n.Entry.Absent() || n.Guard == GuardUnfit || n.Guard == GuardJoiner) {
			return true
		}
	}
	return false
}

// forgetUnless forgets the note of a path that agrees again, unless it tells
// of something left behind that still stands there.
func (l *Loop) forgetUnless(p manifest.Path, d manifest.Entry) {
	if n, ok := l.notes[p]; ok && n.Guard == GuardLeft && n.Entry.Same(d) && !d.Absent() {
		return
	}
	l.forget(p)
}

// rule takes an operator's word. A path speaks for everything held below it.
func (l *Loop) rule(ev Ruling) {
	named := func(p manifest.Path) bool {
		for _, q := range ev.Paths {
			if p == q || p.Under(q) {
				return true
			}
		}
		return len(ev.Paths) == 0
	}
	if l.rootLost != "" && len(ev.Paths) == 0 {
		l.refill = ev.Verb == Restore
	}
	ruled := pathSet{}
	for p := range l.notes {
		if p != "" && named(p) {
			ruled.add(p)
		}
	}
	for _, p := range ruled.sorted() {
		n := l.notes[p]
		if n.Guard.unread() {
			if ev.Verb == Approve {
				l.forgetUnread(p)
			}
			continue
		}
		if ev.Verb == Retry {
			if n.Guard == GuardMassDelete || n.Guard.asks() && !(n.Guard.edit() && l.cfg.Edits == manifest.EditsRepaired) {
				continue // those want a yes or a no
			}
			l.forget(p)
			delete(l.repairs.paths, p)
		} else {
			l.rulings[p] = ev.Verb
		}
		w := l.works.ensure(p)
		if w.phase != offered && w.phase != awaiting && w.phase != applying && w.phase != looking {
			l.lookNow(w)
		}
	}
	if ev.Verb == Retry {
		l.works.each(func(w *work) bool {
			if w.tries > 0 && (w.phase == toLook || w.phase == waiting) {
				w.tries = 0
				l.lookNow(w)
			}
			return true
		})
	}
}
