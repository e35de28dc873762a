package syncer

import (
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// changeOverhead is what a change takes in the log beside its path and target.
const changeOverhead = 80

// offerBatches turns what is queued into changesets. Small changes share one
// batch, and one such batch is under way at a time (what comes meanwhile goes
// together with the next). A big file has a batch of its own.
func (l *Loop) offerBatches() {
	l.offerBig()
	if l.lane != 0 || len(l.queue)+len(l.removals) == 0 {
		return
	}
	var b batch
	var over []manifest.Path
	for _, p := range l.queue.sorted() {
		w := l.works.get(p)
		if b.full(l.cfg) {
			break
		}
		if !l.parentStands(p, &b) {
			l.lookAgain(w)
			continue
		}
		if l.replacesDir(w) {
			over = append(over, p)
			continue
		}
		b.add(l.change(w))
	}
	l.addRemovals(&b)
	for _, p := range over {
		if l.cleared(p, &b) {
			b.add(l.change(l.works.get(p)))
		}
	}
	if len(b.changes) > 0 {
		l.lane = l.send(b)
	}
}

type batch struct {
	changes []manifest.Change
	bytes   int
	content int64
	in      pathSet
}

func (b *batch) full(c LoopConfig) bool {
	return len(b.changes) >= c.BatchChanges || b.bytes >= c.BatchBytes || b.content >= c.BatchContent
}

func (b *batch) add(c manifest.Change) {
	if b.in == nil {
		b.in = pathSet{}
	}
	b.in.add(c.Path)
	b.changes = append(b.changes, c)
	b.bytes += changeOverhead + len(c.Path) + len(c.New.Target)
	b.content += c.New.Size
}

func (l *Loop) big(w *work) bool {
	return w.obs.Entry.Kind == manifest.File && w.obs.Entry.Size >= l.cfg.BigFile
}

// parentStands tells whether p's directory is committed, or goes first in b.
func (l *Loop) parentStands(p manifest.Path, b *batch) bool {
	dir := p.Dir()
	return dir == "" || l.view.Manifest.Entry(dir).IsDir() || b.in.has(dir)
}

// replacesDir tells whether w is to take the place of a committed directory.
func (l *Loop) replacesDir(w *work) bool {
	a, _ := l.anc.Get(w.path)
	d, _ := l.disk(w, a)
	return !d.IsDir() && l.view.Manifest.Entry(w.path).IsDir()
}

// cleared tells whether the committed directory at p can be replaced with or
// after b: nothing is committed below it but what b deletes. Where what stood in
// it is held, so is what stands there now.
func (l *Loop) cleared(p manifest.Path, b *batch) bool {
	if l.emptied(p, b) {
		return true
	}
	if l.held(p) {
		w := l.works.get(p)
		l.hold(w, GuardMassDelete, "what stood in the directory before is held", w.obs.Entry)
	} else if w := l.works.get(p); !l.steward() && l.doubtsBelow(p) {
		c, _ := l.view.Manifest.Get(p)
		l.leave(w, c)
	} else {
		l.lookAgain(l.works.get(p))
	}
	return false
}

func (l *Loop) offerBig() {
	for _, p := range l.bigQueue.sorted() {
		var b batch
		if w := l.works.get(p); l.parentStands(p, &b) && (!l.replacesDir(w) || l.cleared(p, &b)) {
			b.add(l.change(w))
			l.send(b)
		}
	}
}

// addRemovals adds deletions, deepest first; a directory only with or after
// everything that is committed below it.
func (l *Loop) addRemovals(b *batch) {
	paths := l.removals.sorted()
	slices.Reverse(paths)
	for _, p := range paths {
		if b.full(l.cfg) {
			return
		}
		w := l.works.get(p)
		if n := l.view.Manifest.Entry(p); n.IsDir() && !l.emptied(p, b) {
			if l.held(p) {
				l.hold(w, GuardMassDelete, "what stood in it is held", manifest.Entry{})
			} else if !l.steward() && l.doubtsBelow(p) {
				c, _ := l.view.Manifest.Get(p)
				l.leave(w, c) // the steward holds, or brings back, what stood in it
			} else {
				l.lookAgain(w)
			}
			continue
		}
		b.add(l.change(w))
	}
}

// emptied tells whether everything committed below dir is deleted by b.
func (l *Loop) emptied(dir manifest.Path, b *batch) bool {
	all := true
	l.view.Manifest.Under(dir, func(p manifest.Path, _ manifest.Node) bool {
		all = b.in.has(p)
		return all
	})
	return all
}

// held tells whether a deletion below dir is held back.
func (l *Loop) held(dir manifest.Path) (held bool) {
	l.view.Manifest.Under(dir, func(p manifest.Path, _ manifest.Node) bool {
		n, ok := l.notes[p]
		held = ok && (n.Guard == GuardMassDelete || n.Guard.edit())
		return !held
	})
	return held
}

// change describes w's difference as the log wants it.
func (l *Loop) change(w *work) manifest.Change {
	c, _ := l.view.Manifest.Get(w.path)
	a, _ := l.anc.Get(w.path)
	d, _ := l.disk(w, a)
	return manifest.Change{Path: w.path, Expect: c.Revision, New: d}
}

// send starts a batch and returns its number.
func (l *Loop) send(b batch) uint64 {
	l.lastBatch++
	id := l.lastBatch
	for _, c := range b.changes {
		w := l.works.get(c.Path)
		a, _ := l.anc.Get(c.Path)
		if w.phase == presumed { // a directory that comes back for what is new in it
			w.obs = Observation{Path: c.Path, Sight: Seen, Entry: a.Entry, Stamp: a.Stamp}
		}
		l.unqueue(w)
		w.phase, w.again, w.sent, w.spent = offered, false, &c.New, true
		l.batches[id] = append(l.batches[id], c.Path)
	}
	l.emit(Propose{Batch: id, Changes: b.changes, Origin: l.origin(), Begun: l.begun})
	return id
}

// proposed takes the machine's answer to a batch; each path goes on once the
// view shows what it answered.
func (l *Loop) proposed(ev Proposed) {
	paths, ok := l.batches[ev.Batch]
	if !ok {
		return
	}
	delete(l.batches, ev.Batch)
	if l.lane == ev.Batch {
		l.lane = 0
	}
	refused := map[manifest.Path]manifest.Refusal{}
	for _, r := range ev.Result.Refused {
		refused[r.Path] = r
	}
	for _, p := range paths {
		w := l.works.get(p)
		if w == nil || w.phase != offered {
			continue
		}
		if ev.Err != nil {
			w.why = ev.Err.Error()
			w.unsent = true
			l.lookLater(w, backoff(failDelay, failMax, w.tries))
			w.tries++
			continue
		}
		r := refused[p]
		w.phase, w.unsent = awaiting, false
		w.awaits = max(ev.Result.Revision, r.Current, ev.Result.AsOf)
		w.result = changeResult{revision: ev.Result.Revision, refused: r.Reason}
		l.ready.add(p)
	}
}

// conclude ends the offer of one path: what was committed becomes the
// ancestor, even where the disk has moved on. It tells whether the path can be
// decided on at once.
func (l *Loop) conclude(w *work) bool {
	if w.void {
		w.void = false
		l.lookNow(w)
		return false
	}
	switch w.result.refused {
	case 0:
	case manifest.Malformed:
		l.hold(w, GuardRefused, "the cluster cannot take it: "+w.result.refused.String(), *w.sent)
		return false
	default:
		w.why = "refused: " + w.result.refused.String()
		if l.shared() {
			w.onMount().beaten = *w.sent
		}
		if w.result.refused == manifest.NoParent {
			if dir := w.path.Dir(); dir != "" {
				l.hint(dir)
			}
		}
		l.lookLater(w, backoff(refusedDelay, refusedMax, w.setbacks))
		w.setbacks++
		return false
	}
	w.tries, w.setbacks, w.why, w.cut, w.shut = 0, 0, "", false, false
	w.rested()
	c, _ := l.view.Manifest.Get(w.path)
	if w.sent.Absent() {
		l.agree(w, Ancestor{}, true)
	} else {
		a := Ancestor{Entry: *w.sent, Revision: w.result.revision, Author: l.cfg.Self, Stamp: w.obs.Stamp}
		if c.Entry.Same(*w.sent) {
			a.Revision, a.Author = c.Revision, c.Author
		}
		l.agree(w, a, true)
	}
	w.goneAt = time.Time{}
	l.forget(w.path)
	delete(l.rulings, w.path)
	if w.pending != 0 && c.Entry.Same(*w.sent) {
		w.pending = 0
	}
	if w.again {
		l.lookNow(w)
		return false
	}
	w.phase = presumed
	w.obs = Observation{}
	return true
}
