package syncer

import (
	"slices"

	"github.com/gatesync/gatesync/manifest"
)

// unread tells whether a guard is about what stands below a directory that
// could not be read.
func (g Guard) unread() bool { return g == GuardUnread || g == GuardUnreadLost }

// noteUnread keeps, for what stands below directories that could not be read,
// the care that ends for everything else: a joiner's, or that of lost records.
func (l *Loop) noteUnread() {
	if l.cfg.Adopt && !l.closed() && !l.refill && !l.state.Lost {
		return
	}
	for _, t := range l.unread {
		switch l.notes[t.Path].Guard {
		case GuardJoiner, GuardRecords:
			continue // held as a whole
		}
		n := Note{Guard: GuardUnread, Why: "could not be read when this node joined; what is new in it is held once it can: " + t.Why}
		if l.state.Lost {
			n = Note{Guard: GuardUnreadLost, Why: "could not be read, and this node's records of the tree were damaged; what differs in it is held once it can: " + t.Why}
		}
		l.note(t.Path, n)
	}
}

// unreadAbove is the guard of what stands at p, "" where nothing above it was unread.
func (l *Loop) unreadAbove(p manifest.Path) Guard {
	if len(l.careful) == 0 {
		return ""
	}
	for dir := p.Dir(); dir != ""; dir = dir.Dir() {
		if l.careful.has(dir) {
			return l.notes[dir].Guard
		}
	}
	return ""
}

// maybeRead ends the care for a directory once a complete scan could read it,
// and everything below it has been looked at and decided.
func (l *Loop) maybeRead() {
	if len(l.careful) == 0 || !l.mayAct() {
		return
	}
	for _, dir := range l.careful.sorted() {
		unread := slices.ContainsFunc(l.unread, func(t Trouble) bool { return t.Path == dir || t.Path.Under(dir) || dir.Under(t.Path) })
		if !unread && l.holdStuck(func(fn func(*work) bool) { l.works.under(dir, fn) }) {
			l.forgetUnread(dir)
		}
	}
}

// holdStuck holds what is stuck among these works, once everything else of them
// has been looked at and decided; false until then.
func (l *Loop) holdStuck(these func(func(*work) bool)) bool {
	decided := true
	var stuck []*work
	these(func(w *work) bool {
		if w.stuck() {
			stuck = append(stuck, w)
		} else {
			decided = w.phase != toLook && w.phase != looking && !(l.state.Aside && l.rulings[w.path] == Restore)
		}
		return decided
	})
	if decided {
		for _, w := range stuck {
			l.holdUnseen(w)
		}
	}
	return decided
}

func (l *Loop) forgetUnread(dir manifest.Path) {
	l.careful.drop(dir)
	l.forget(dir)
}
