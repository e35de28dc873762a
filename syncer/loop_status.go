package syncer

import (
	"fmt"
	"maps"

	"github.com/gatesync/gatesync/manifest"
)

// LoopStatus is what a Loop tells of itself: counts, and what an operator
// should know.
type LoopStatus struct {
	Revision  manifest.Revision // committed, as seen by this loop
	Applied   manifest.Revision // the disk follows everything up to here, but what is held or busy
	RootLost  string            // why nothing is done, "" if all is well
	Scanned   bool              // the first scan is complete
	Unread    []Trouble         // directories that the last complete scan could not list
	Joiner    bool
	Aside     bool // as a joiner: what the log does not hold goes aside
	Looking   int  // paths to be looked at, or under a look
	Offering  int  // local edits on their way to the log
	Following int  // committed changes on their way to the disk
	Unsent    int  // local edits that could not be committed so far
	UnsentWhy string
	Unsettled int // works that a person would wait for: all but busy and held ones
	Busy      []Trouble
	Failing   []Trouble // committed changes that cannot be brought to the disk, tried again and again
	Notes     map[manifest.Path]Note
	Edits     manifest.Edits // what becomes of edits
	Opening   bool           // what was edited while none were taken is still to be seen
	Edited    []Trouble      // edits that stand where none are taken, the first of them
	EditedAll int            // … all of them
	Repaired  uint64         // edits that were undone in this run
}

// known is what the loop takes to stand on the disk: what a scan compares it with.
type known struct {
	ancestors *AncestorMap
	noted     []manifest.Path // known not to be as the ancestor says
}

func (l *Loop) known() known {
	k := known{ancestors: l.anc.Clone()}
	for p, n := range l.notes {
		if p != "" && !n.Guard.unread() {
			k.noted = append(k.noted, p)
		}
	}
	return k
}

// Trouble is one path that does not go on, and why.
type Trouble struct {
	Path manifest.Path
	Why  string
}

const troublesMost = 100

// Status tells where the loop stands. O(works).
func (l *Loop) Status() LoopStatus {
	s := LoopStatus{
		Revision: l.view.Revision, RootLost: l.rootLost, Scanned: l.scanned, Unread: l.unread, Joiner: l.state.Joiner, Aside: l.state.Joiner && l.state.Aside,
		Notes: maps.Clone(l.notes),
	}
	s.Edits, s.Repaired, s.Opening = l.cfg.Edits, l.repairs.total, l.state.Closed && l.cfg.Edits == manifest.EditsOffered
	s.Edited, s.EditedAll = l.edited()
	applied := l.view.Revision
	l.works.each(func(w *work) bool {
		stuck := w.stuck()
		switch w.phase {
		case toLook, looking, settled:
			s.Looking++
		case offered, awaiting:
			s.Offering++
		case fetching, staged, applying, presumed, waiting:
			s.Following++
		}
		if w.unsent {
			s.Unsent++
			s.UnsentWhy = w.why
		}
		if stuck && w.why != "" && len(s.Busy) < troublesMost {
			s.Busy = append(s.Busy, Trouble{w.path, w.why})
		}
		if !stuck || w.unsent {
			s.Unsettled++
		}
		if w.failing != "" && len(s.Failing) < troublesMost {
			s.Failing = append(s.Failing, Trouble{w.path, w.failing})
		}
		if w.pending > 0 && !stuck {
			applied = min(applied, w.pending-1)
		}
		return true
	})
	if l.mayAct() {
		l.told = max(l.told, applied)
	}
	s.Applied = l.told
	return s
}

// stuck tells whether a path is held up by somebody who writes it, or by a
// failure of its own that has been met several times: nobody should wait for
// it. A disk that takes nothing is no failure of a path: what does not get onto
// it is behind, and `wait` and /readyz are to say so.
func (w *work) stuck() bool {
	if w.mount != nil && w.phase == toLook && w.mount.doubts > doubtsStuck {
		return true
	}
	return w.phase == toLook && (max(w.tries, w.setbacks) > stuckTries || w.fails > stuckTries && !w.noRoom)
}

// Mark begins a wait for all that is under way now, and for nothing that comes
// later: where gateways write without a pause, there is always something.
func (l *Loop) Mark() (mark uint32) {
	l.works.mark++
	return l.works.mark
}

// Unsettled counts the works that were under way at a mark and that a person
// waits for: those that have not come to rest since, nor been offered as a look
// after the mark saw them. Busy and held ones are not waited for.
func (l *Loop) Unsettled(mark uint32) (n int) {
	l.works.each(func(w *work) bool {
		if w.begun < mark && (!w.stuck() || w.unsent) {
			n++
		}
		return true
	})
	return n
}

// doubtsStuck is how often what is committed was not seen on a shared disk: half a
// minute.
const doubtsStuck = 10

const stuckTries = 8 // about a second of being busy

// Works lists what the loop works on, a line for each path: for traces.
func (l *Loop) Works() (lines []string) {
	l.works.each(func(w *work) bool {
		lines = append(lines, fmt.Sprintf("%q %s again=%v pending=%d tries=%d why=%q wanted=%v needed=%v at=%v",
			w.path, w.phase, w.again, w.pending, w.tries, w.why, w.wanted, w.needed, w.at))
		return true
	})
	return lines
}

func (p phase) String() string {
	return [...]string{"presumed", "to look", "looking", "settled", "offered", "awaiting", "fetching", "staged", "applying", "waiting"}[p]
}
