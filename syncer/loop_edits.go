package syncer

import (
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// Of a tree that takes no edits (docs/design.md, "Direction"). Everything but the
// edits goes its usual way: only where a path would be offered to the log does
// manifest.Edits say something else.

const (
	// repairsMost is how often in a row a path is repaired before it is taken for
	// one that somebody writes again each time, and left to a person …
	repairsMost = 3
	// … within repairsWithin of one another.
	repairsWithin = 10 * time.Minute
	// repairsKept bounds how many paths are counted at a time.
	repairsKept = 10_000
)

// edit tells whether a guard is about an edit in a tree that takes none.
func (g Guard) edit() bool { return g == GuardWrite || g == GuardRewritten }

// asks tells whether a guard wants a yes or a no of a person, whatever becomes of
// the file meanwhile.
func (g Guard) asks() bool { return g == GuardJoiner || g == GuardRecords || g.edit() }

// repairs counts what was repaired.
type repairs struct {
	total uint64
	paths map[manifest.Path]repaired
}

type repaired struct {
	times int
	last  time.Time
}

func newRepairs() repairs { return repairs{paths: map[manifest.Path]repaired{}} }

// did counts a repair.
func (r *repairs) did(p manifest.Path, now time.Time) {
	r.total++
	if len(r.paths) >= repairsKept {
		for q, was := range r.paths {
			if now.Sub(was.last) > repairsWithin {
				delete(r.paths, q)
			}
		}
		if len(r.paths) >= repairsKept {
			return
		}
	}
	was := r.paths[p]
	if now.Sub(was.last) > repairsWithin {
		was.times = 0
	}
	r.paths[p] = repaired{was.times + 1, now}
}

// vain tells whether repairing p again would be in vain.
func (r *repairs) vain(p manifest.Path, now time.Time) bool {
	was := r.paths[p]
	return was.times >= repairsMost && now.Sub(was.last) <= repairsWithin
}

// shut is what is left to be seen of what was edited while the tree took no edits,
// and takes some now. It is marked once all that differs is known, so that what is
// edited from then on does not have to wait for it.
type shut struct {
	marked bool
	unread []manifest.Path // directories of which nobody knows what was edited below them
}

// closed tells whether the tree takes no edits, or some that stand were made when
// it took none.
func (l *Loop) closed() bool { return l.cfg.Edits != manifest.EditsOffered || l.state.Closed }

// edits says what becomes of an edit of w's path now: what was edited while none
// were taken stands, and asks.
func (l *Loop) edits(w *work) manifest.Edits {
	if l.cfg.Edits != manifest.EditsOffered || !l.state.Closed {
		return l.cfg.Edits
	}
	if w.shut || slices.ContainsFunc(l.shut.unread, w.path.Under) {
		return manifest.EditsReported
	}
	return manifest.EditsOffered
}

// markShut marks, after a complete scan, what differs.
func (l *Loop) markShut() {
	if l.cfg.Edits != manifest.EditsOffered || !l.state.Closed {
		return
	}
	unread := func(dir manifest.Path) bool {
		return slices.ContainsFunc(l.unread, func(t Trouble) bool { return t.Path == dir || dir.Under(t.Path) })
	}
	if !l.shut.marked {
		l.shut.marked = true
		l.works.each(func(w *work) bool { w.shut = true; return true })
		for _, t := range l.unread {
			l.shut.unread = append(l.shut.unread, t.Path)
		}
		return
	}
	l.shut.unread = slices.DeleteFunc(l.shut.unread, func(dir manifest.Path) bool {
		if unread(dir) {
			return false
		}
		l.works.under(dir, func(w *work) bool { w.shut = true; return true })
		return true
	})
}

// refuses ends an edit where none are taken, and tells whether it has.
func (l *Loop) refuses(w *work, a Ancestor, d manifest.Entry, c manifest.Node) bool {
	switch l.edits(w).Of(manifest.Offer) {
	case manifest.Stand:
		why := "edited here, and this node's tree takes no edits (write: never)"
		if l.cfg.Edits == manifest.EditsOffered {
			why = "edited here while this node's tree took no edits (write: never)"
		}
		l.hold(w, GuardWrite, why, d)
	case manifest.Collide:
		if l.repairs.vain(w.path, l.now) {
			l.hold(w, GuardRewritten, "edited here again each time it was put back, and this node's tree takes no edits (write: never)", d)
			return true
		}
		w.repair = true
		l.follow(w, a, d, c, "edited on a node whose tree takes no edits (write: never)")
	default:
		return false
	}
	return true
}

// maybeOpened ends the care for what was edited while the tree took no edits, once
// all of it has come to rest.
func (l *Loop) maybeOpened() {
	if !l.state.Closed || !l.shut.marked || !l.mayAct() || len(l.shut.unread) > 0 {
		return
	}
	left := false
	l.works.each(func(w *work) bool { left = w.shut; return !left })
	if left {
		return
	}
	l.state.Closed = false
	l.emit(Opened{})
}

// edited lists what stands edited, the first of it, and counts all of it.
func (l *Loop) edited() (first []Trouble, all int) {
	for p, n := range l.notes {
		if n.Guard.edit() {
			all++
			first = append(first, Trouble{p, n.Why})
		}
	}
	slices.SortFunc(first, func(a, b Trouble) int { return manifest.Compare(a.Path, b.Path) })
	return first[:min(len(first), troublesMost)], all
}

// sayEdit logs an edit that stands where none are taken, once per path and run.
func (s *Syncer) sayEdit(e Remember) {
	if e.Note == nil || !e.Note.Guard.edit() || s.said(e.Path) {
		return
	}
	s.log.Warn("a local edit is not proposed, and stands", "path", e.Path, "why", e.Note.Why)
}

// sayRepairs logs edits that are put back, once per path and run.
func (s *Syncer) sayRepairs(e Apply) {
	for _, step := range e.Steps {
		if step.Repair && !s.said(step.Path) {
			s.log.Warn("a local edit is not proposed: what is committed is put back, and the edit kept aside", "path", step.Path)
		}
	}
}

// said tells whether the log has named a path as edited in this run, and has it
// named from now on. Of very many the rest is told by status alone.
func (s *Syncer) said(p manifest.Path) bool {
	if s.told.has(p) || len(s.told) >= repairsKept {
		return true
	}
	s.told.add(p)
	return false
}
