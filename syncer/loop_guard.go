package syncer

import (
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// deletes are the deletions that were seen and not yet judged, and what the
// guard has to know of the recent past.
type deletes struct {
	candidates pathSet
	first      time.Time // sighting of the run that is under way
	last       time.Time // sighting of it
	recent     []sighting
	moved      pathSet                    // judged to be moves: not counted when they are committed
	newcomers  map[manifest.Path]sighting // content that appeared: a deletion of the same content is a move
}

type sighting struct {
	at     time.Time
	digest manifest.Digest
}

func newDeletes() deletes {
	return deletes{candidates: pathSet{}, moved: pathSet{}, newcomers: map[manifest.Path]sighting{}}
}

// saw notes the first sighting of an absence.
func (d *deletes) saw(now time.Time, quiet time.Duration) {
	if d.first.IsZero() || len(d.candidates) == 0 && now.Sub(d.last) > quiet {
		d.first = now
	}
	d.last = now
}

// add makes a settled absence a candidate for deletion. What it was judged to be
// before, without being sent, says nothing any more.
func (d *deletes) add(p manifest.Path, now time.Time) {
	d.candidates.add(p)
	d.moved.drop(p)
	if d.first.IsZero() {
		d.saw(now, 0)
	}
}

func (d *deletes) drop(p manifest.Path) { d.candidates.drop(p) }

func (d *deletes) clear() { *d = newDeletes() }

func (d *deletes) committed(p manifest.Path, e manifest.Entry, now time.Time) {
	if d.moved.has(p) {
		d.moved.drop(p)
		return
	}
	d.recent = append(d.recent, sighting{now, e.Digest})
}

func (d *deletes) appeared(p manifest.Path, e manifest.Entry, now time.Time) {
	if !e.IsDir() {
		d.newcomers[p] = sighting{now, e.Digest}
	}
}

// expire forgets what lies outside the window.
func (d *deletes) expire(now time.Time, window time.Duration) {
	for len(d.recent) > 0 && d.recent[0].at.Add(window).Before(now) {
		d.recent = d.recent[1:]
	}
	for p, s := range d.newcomers {
		if s.at.Add(window).Before(now) {
			delete(d.newcomers, p)
		}
	}
}

// judgeDeletes lets a run of deletions pass or holds all of it, once it is complete.
func (l *Loop) judgeDeletes() {
	d := &l.deletes
	if len(d.candidates) == 0 {
		return
	}
	if at := l.judgeAt(); l.now.Before(at) {
		l.timers.add(at, "")
		return
	}
	d.expire(l.now, l.cfg.Window)
	l.judgeAgain()
	candidates := d.candidates.sorted()
	count := l.countDeletes(candidates)
	mass := manifest.MassDeletion(l.cfg.MaxDelete, count)
	why := describe(count.Pending+count.Recent, count.Present+count.Recent)
	for _, p := range candidates {
		if mass {
			d.moved.drop(p)
			l.hold(l.works.get(p), GuardMassDelete, why, manifest.Entry{})
			continue
		}
		l.removals.add(p)
	}
	d.candidates = pathSet{}
	d.first, d.last = time.Time{}, time.Time{}
}

// judgeAt is when the run that is under way is to be judged: once it has been
// quiet for the settling time and nothing is looked at any more, for judged apart, a
// few would pass before the rest is found to be too many; but not after too long.
func (l *Loop) judgeAt() time.Time {
	quietAt, mostAt := l.deletes.last.Add(l.cfg.Settle), l.deletes.first.Add(l.cfg.Burst)
	switch {
	case l.now.Before(quietAt) && quietAt.Before(mostAt):
		return quietAt
	case l.now.Before(quietAt), l.stillLooking():
		return mostAt
	}
	return l.now
}

// countDeletes counts what the guard judges by, and notes which of the candidates
// are moves: they do not count.
func (l *Loop) countDeletes(candidates []manifest.Path) manifest.Deletions {
	places, pending := l.movesTo(), 0
	for _, p := range candidates {
		e := l.gone(p)
		switch {
		case e.IsDir():
		case places.take(e.Digest, l.works.get(p).goneAt):
			l.deletes.moved.add(p)
		default:
			pending++
		}
	}
	count := manifest.Deletions{Pending: pending, Recent: len(l.deletes.recent)}
	if pending > 0 {
		deleted, moved := l.deleting()
		count.Pending += l.heldBefore() + deleted
		count.Present = l.present() + l.coming() - moved
	}
	return count
}

// gone is what a deletion of p takes away. What is committed there may be news to
// the ancestor: another node of the mount has put it there, or this node offered
// it in place of a directory, and the answer was lost.
func (l *Loop) gone(p manifest.Path) manifest.Entry {
	a, had := l.anc.Get(p)
	if !had || a.Entry.IsDir() || l.shared() {
		return l.view.Manifest.Entry(p)
	}
	return a.Entry
}

// heldBefore counts the deletions of files that are held already.
func (l *Loop) heldBefore() (n int) {
	for p, note := range l.notes {
		if note.Guard == GuardMassDelete && !l.deletes.candidates.has(p) && !l.view.Manifest.Entry(p).IsDir() {
			n++
		}
	}
	return n
}

// moves are the places where content has appeared, each good for one deletion of
// the same: until when its content was seen to stand there. In order of time.
type moves map[manifest.Digest][]time.Time

// movesTo finds what may be where moves went to. On a disk that other machines
// write to nobody tells what has become of a path that is offered since it was
// seen, so there it is good for what was missed before that only.
func (l *Loop) movesTo() moves {
	m := moves{}
	for p, s := range l.deletes.newcomers {
		if !l.stands(p, s.digest) {
			continue
		}
		until := l.now
		if _, agreed := l.anc.Get(p); l.shared() && !agreed {
			until = s.at
		}
		m[s.digest] = append(m[s.digest], until)
	}
	for _, until := range m {
		slices.SortFunc(until, time.Time.Compare)
	}
	return m
}

// take uses up a place that held d when its other place was first seen empty.
func (m moves) take(d manifest.Digest, gone time.Time) bool {
	for i, until := range m[d] {
		if !until.Before(gone) {
			m[d] = slices.Delete(m[d], i, i+1)
			return true
		}
	}
	return false
}

// judgeAgain takes back the deletions that were judged and could not be sent so
// far: without quorum they would gather one by one, each of them few.
func (l *Loop) judgeAgain() {
	for p := range l.removals {
		if l.rulings[p] != Approve {
			l.removals.drop(p)
			l.deletes.candidates.add(p)
			l.deletes.moved.drop(p)
		}
	}
}

// deleting counts the deletions of files that are on their way to the log; apart
// from them those of moves, which count as no deletions: where to they went may be
// gone by now, and counts then.
func (l *Loop) deleting() (n, moved int) {
	for _, paths := range l.batches {
		for _, p := range paths {
			w := l.works.get(p)
			a, _ := l.anc.Get(p)
			switch {
			case w == nil || w.sent == nil || !w.sent.Absent():
			case !a.Entry.IsLeaf() && !l.gone(p).IsLeaf():
			case l.deletes.moved.has(p):
				moved++
			default:
				n++
			}
		}
	}
	return n, moved
}

// coming counts the files that are offered, or about to be, where none is
// committed: what they are put in the place of does not leave the tree empty. A
// directory in place of a file takes one away. Only what was seen a moment ago
// counts: that it has gone since may be an event that was lost. Of a disk that
// other machines write to nobody tells what has become of it once it was sent.
func (l *Loop) coming() (n int) {
	l.works.each(func(w *work) bool {
		e := w.obs.Entry
		queued := l.queue.has(w.path) || l.bigQueue.has(w.path)
		sent := w.phase == offered || w.phase == awaiting
		lately := (queued || !l.shared()) && l.now.Sub(l.deletes.newcomers[w.path].at) <= unseenSettle*l.cfg.Settle
		c := l.view.Manifest.Entry(w.path)
		switch {
		case !queued && !sent:
		case e.IsLeaf() && !c.IsLeaf() && !w.again && lately:
			n++
		case e.IsDir() && c.IsLeaf():
			n--
		}
		return true
	})
	return n
}

// stands tells whether p still holds some content, as far as anybody has seen:
// what came and went again is no move of anything.
func (l *Loop) stands(p manifest.Path, d manifest.Digest) bool {
	a, _ := l.anc.Get(p)
	e := a.Entry
	if w := l.works.get(p); w != nil {
		if !w.goneAt.IsZero() || w.again {
			return false
		}
		if w.obs.Sight == Seen {
			e = w.obs.Entry
		}
	} else if n, held := l.notes[p]; held && n.Entry.Absent() {
		return false
	}
	return e.Digest == d
}

// stillLooking tells whether any path is to be looked at or under a look, now or
// as soon as what is under way for it has ended, but for those that somebody
// keeps busy.
func (l *Loop) stillLooking() (looks bool) {
	l.works.each(func(w *work) bool {
		looks = w.again || w.phase == looking || w.phase == toLook && !w.stuck()
		return !looks
	})
	return looks
}

// present counts the committed files and symlinks.
func (l *Loop) present() (n int) {
	l.view.Manifest.All(func(_ manifest.Path, node manifest.Node) bool {
		if !node.Entry.IsDir() {
			n++
		}
		return true
	})
	return n
}

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
