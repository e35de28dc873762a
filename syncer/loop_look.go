package syncer

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// Delays before a path is looked at or tried again.
const (
	busyDelay    = time.Millisecond // somebody writes it: doubled up to busyMax
	busyMax      = 250 * time.Millisecond
	failDelay    = 200 * time.Millisecond // the machinery failed: doubled up to failMax
	failMax      = 5 * time.Second
	noisyLooks   = 6 // looks in a row that were overtaken: from then on it is noisy
	noisyDelay   = time.Second
	noRoomDelay  = 5 * time.Second
	refusedDelay = 10 * time.Millisecond
	refusedMax   = time.Second
	waitingDelay = time.Second // a safety net: whoever waits for another path is woken by it
)

func backoff(first, most time.Duration, tries int) time.Duration {
	d := first << min(tries, 16)
	return min(d, most)
}

// hint notes that a path may differ: it is to be looked at, now or as soon as
// what is under way for it has ended.
func (l *Loop) hint(p manifest.Path) {
	w := l.works.ensure(p)
	switch w.phase {
	case looking, offered, awaiting, applying:
		w.again = true
	case toLook:
		// A file that is being written reports each write: what waits because it
		// was busy goes on waiting. An absence may be over: look at once.
		if w.tries == 0 || !w.goneAt.IsZero() {
			l.lookNow(w)
		}
	default:
		l.lookNow(w)
	}
}

// lookNow asks for an observation in this call.
func (l *Loop) lookNow(w *work) {
	l.unqueue(w)
	w.phase, w.at = toLook, time.Time{}
	l.looks.add(w.path)
}

// unqueue takes back what was prepared for a path, because it has to be seen anew.
func (l *Loop) unqueue(w *work) {
	l.queue.drop(w.path)
	l.bigQueue.drop(w.path)
	l.removals.drop(w.path)
	l.leaving.drop(w.path)
	l.toApply.drop(w.path)
	l.bigToApply.drop(w.path)
	l.brake.drop(w.path)
}

// lookLater asks for an observation after a delay.
func (l *Loop) lookLater(w *work, d time.Duration) {
	l.unqueue(w)
	w.phase, w.at = toLook, l.now.Add(d)
	l.timers.add(w.at, w.path)
}

// decideLater keeps what was seen and decides anew after a delay.
func (l *Loop) decideLater(w *work, d time.Duration) {
	w.at = l.now.Add(d)
	l.timers.add(w.at, w.path)
}

// lookAgain has a path looked at anew that cannot be offered yet, unless it is
// soon: no scan hints at what has meanwhile become as the ancestor says.
func (l *Loop) lookAgain(w *work) {
	if w.at.IsZero() {
		l.decideLater(w, waitingDelay)
	}
}

func (l *Loop) fireTimers() {
	for {
		p, ok := l.timers.due(l.now)
		if !ok {
			break
		}
		w := l.works.get(p)
		if w == nil || w.at.IsZero() || w.at.After(l.now) {
			continue // stale
		}
		w.at = time.Time{}
		switch w.phase {
		case toLook:
			l.looks.add(p)
		case waiting, settled:
			l.lookNow(w) // what it waits with may not be there any more
		default:
			l.ready.add(p)
		}
	}
}

// flushLooks turns the paths to look at into one Look.
func (l *Loop) flushLooks() {
	if l.rootLost != "" || len(l.looks) == 0 {
		return
	}
	look := Look{}
	for _, p := range l.looks.sorted() {
		w := l.works.get(p)
		if w == nil || w.phase != toLook {
			continue
		}
		w.phase, w.again, w.lookedAt = looking, false, l.works.mark
		a, _ := l.anc.Get(p)
		at := LookAt{Path: p, Was: a}
		if l.shared() {
			at.Want = l.view.Manifest.Entry(p)
		}
		look.Paths = append(look.Paths, at)
	}
	clear(l.looks)
	if len(look.Paths) > 0 {
		l.emit(look)
	}
}

func (l *Loop) looked(ev Looked) {
	for _, obs := range ev.Observations {
		w := l.works.get(obs.Path)
		if w == nil || w.phase != looking {
			continue // the root was lost in between, or the executor answered twice
		}
		l.sight(w, obs)
	}
}

// sight takes what a look found. Nothing was materialized at the path while it
// was looked at, so the observation is not older than the ancestor.
func (l *Loop) sight(w *work, obs Observation) {
	if obs.Sight != Gone {
		w.goneAt, w.wasThere = time.Time{}, true // also where the look was overtaken: it was there
	}
	if w.again {
		w.tries++
		if w.tries < noisyLooks {
			l.lookNow(w)
		} else {
			w.why = "changes all the time"
			l.lookLater(w, noisyDelay)
		}
		return
	}
	w.weigh(obs)
	switch obs.Sight {
	case Busy, Unreadable:
		w.why = obs.Why
		if obs.Sight == Unreadable { // seldom over by itself: named after two seconds
			l.lookLater(w, backoff(failDelay, failMax, w.tries))
			w.tries += 3
			return
		}
		if obs.Rest > 0 {
			// It is looked at once, when it may have rested: each look costs a file
			// server several calls. One that goes on changing is noisy after some.
			if obs.Rest >= quietPeriod {
				w.tries += 3
			}
			l.lookLater(w, obs.Rest)
			return
		}
		l.lookLater(w, backoff(busyDelay, busyMax, w.tries))
		w.tries++
		return
	case Gone:
		if !l.absenceHolds(w, obs) {
			return
		}
	}
	w.tries, w.why = 0, ""
	known := w.doubtful() && w.obs.Sight == obs.Sight && w.obs.Entry.Same(obs.Entry)
	w.obs, w.phase = obs, settled
	if w.spent && !obs.Entry.Same(*w.sent) {
		w.witnessed = false // who wrote this is not who wrote what was offered
	}
	l.ready.add(w.path)
	if !known && (obs.Sight == Gone || !obs.Entry.IsDir()) {
		l.hintBelow(w)
	}
}

// absenceHolds tells whether a sighting as absent may be acted upon. Absence is
// the weakest evidence: where it would read as a deletion it has to be seen
// twice, a settling time apart.
func (l *Loop) absenceHolds(w *work, obs Observation) bool {
	if _, had := l.anc.Get(w.path); !had {
		return true
	}
	if n, held := l.notes[w.path]; held && n.Entry.Absent() && !w.wasThere || l.rulings[w.path] != 0 {
		return true // it has been gone for long, or a person has spoken
	}
	if l.shared() && l.view.Tree != "" && l.view.Manifest.Entry(w.path).Absent() {
		return true // another node of the mount has said so
	}
	if w.goneAt.IsZero() {
		w.goneAt = l.now
		l.brake.saw(l.now, 2*l.cfg.Settle)
		w.obs = obs
		l.lookLater(w, l.settle(w))
		l.hintBelow(w)
		return false
	}
	if left := w.goneAt.Add(l.settle(w)).Sub(l.now); left > 0 {
		l.lookLater(w, left)
		return false
	}
	return true
}

// hintBelow has everything looked at that the ancestor knows below a path that
// is no directory any more.
func (l *Loop) hintBelow(dir *work) {
	l.anc.Under(dir.path, func(p manifest.Path, _ Ancestor) bool {
		w := l.works.get(p)
		if w == nil || w.phase == presumed {
			l.hint(p)
			w = l.works.get(p)
		}
		if dir.witnessed && !dir.spent { // it went as a whole
			w.witnesses()
		}
		w.unheard = w.unheard || dir.unheard
		return true
	})
}
