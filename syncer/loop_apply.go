package syncer

import (
	"fmt"
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// applyMost bounds the steps of one Apply.
const applyMost = 2000

// lackMax is the longest pause before content that nobody could give is asked
// for again.
const lackMax = 30 * time.Second

// lack is content that could not be had when it was asked for last.
type lack struct {
	tries int
	at    time.Time // to be asked for again, not before
	why   string
}

// fetch asks for w's blob; the step is applied once it is here.
func (l *Loop) fetch(w *work, ref manifest.BlobRef) {
	if k, ok := l.lacks[ref.Digest]; ok && l.now.Before(k.at) {
		l.awaitContent(w, ref.Digest, k)
		return
	}
	w.phase = fetching
	if _, asked := l.wants[ref.Digest]; !asked {
		l.asks = append(l.asks, ref)
		l.baseOf(w, ref)
	}
	l.wants[ref.Digest] = append(l.wants[ref.Digest], w.path)
}

// baseOf notes what stands in the place of what is asked for: the content of
// both is in the blob store, what was seen and what was agreed on.
func (l *Loop) baseOf(w *work, ref manifest.BlobRef) {
	base := w.obs.Entry
	if w.obs.Sight != Seen {
		a, _ := l.anc.Get(w.path)
		base = a.Entry
	}
	if l.bases == nil {
		l.bases = manifest.Bases{}
	}
	l.bases.Note(manifest.Entry{Kind: manifest.File, Digest: ref.Digest}, base)
}

// awaitContent parks a work whose content cannot be had now.
func (l *Loop) awaitContent(w *work, d manifest.Digest, k lack) {
	w.failing = fmt.Sprintf("its content (%s) cannot be had", d.Short())
	if k.why != "" {
		w.failing += ": " + k.why
	}
	w.phase = waiting
	l.decideLater(w, k.at.Sub(l.now))
}

// peerBack has asked for again, at once, what could not be had.
func (l *Loop) peerBack() {
	if len(l.lacks) == 0 {
		return
	}
	clear(l.lacks)
	l.works.each(func(w *work) bool {
		if w.phase == waiting && w.failing != "" {
			l.ready.add(w.path)
		}
		return true
	})
}

func (l *Loop) flushAsks() {
	if len(l.asks) > 0 {
		l.emit(Fetch{Blobs: l.asks, Bases: l.bases})
		l.asks, l.bases = nil, nil
	}
}

func (l *Loop) fetched(ev Fetched) {
	for _, d := range ev.Have {
		delete(l.lacks, d)
		l.arrived(d, true)
	}
	for d, k := range l.lacks { // what nobody asks for any more
		if k.at.Add(lackMax).Before(l.now) && l.wants[d] == nil {
			delete(l.lacks, d)
		}
	}
	for _, d := range ev.Failed {
		k := l.lacks[d]
		k.at, k.why = l.now.Add(backoff(failDelay, lackMax, k.tries)), ev.Why
		k.tries++
		l.lacks[d] = k
		l.arrived(d, false)
	}
}

func (l *Loop) arrived(d manifest.Digest, have bool) {
	paths := l.wants[d]
	delete(l.wants, d)
	for _, p := range paths {
		w := l.works.get(p)
		if w == nil || w.phase != fetching || w.step.New.Entry.Digest != d {
			continue
		}
		c, _ := l.view.Manifest.Get(p)
		switch {
		case !have:
			l.awaitContent(w, d, l.lacks[d])
		case c != w.step.New: // the log has moved on meanwhile
			w.phase = w.seenPhase()
			l.ready.add(p)
		default:
			w.failing = ""
			l.stage(w)
		}
	}
}

// stageRemovals lets directories go that have nothing left to wait for in them.
func (l *Loop) stageRemovals() {
	paths := l.leaving.sorted()
	slices.Reverse(paths)
	for _, p := range paths {
		w := l.works.get(p)
		blocked := false
		l.works.under(p, func(below *work) bool {
			going := below.phase == staged || below.phase == applying
			blocked = !going || below.step.Op != Remove
			return !blocked
		})
		if blocked {
			continue
		}
		l.leaving.drop(p)
		if w.step.Op == PutFile {
			l.fetch(w, w.step.New.Entry.Blob())
			continue
		}
		l.stage(w)
	}
}

// applySteps starts what is staged: big files each for itself, all else
// together, one such Apply at a time.
func (l *Loop) applySteps() {
	for _, p := range l.bigToApply.sorted() {
		if w := l.works.get(p); l.onDisk(p.Dir()) {
			l.start(w)
			l.emit(Apply{Steps: []Step{*w.step}, Reached: l.view.Revision, Begun: l.begun})
		}
	}
	if l.applying > 0 || len(l.toApply) == 0 {
		return
	}
	var small []Step
	for _, p := range l.toApply.sorted() {
		small = append(small, *l.works.get(p).step)
	}
	l.order(small)
	small = small[:min(len(small), applyMost)]
	for _, s := range small {
		l.start(l.works.get(s.Path))
	}
	l.applying = len(small)
	l.emit(Apply{Steps: small, Reached: l.view.Revision, Begun: l.begun})
}

func (l *Loop) start(w *work) {
	w.phase, w.again = applying, false
	l.toApply.drop(w.path)
	l.bigToApply.drop(w.path)
}

// stage makes w's step ready to be applied.
func (l *Loop) stage(w *work) {
	w.phase = staged
	if l.bigStep(w) {
		l.bigToApply.add(w.path)
	} else {
		l.toApply.add(w.path)
	}
}

// bigStep tells whether w's step takes so long that nobody should wait for it.
func (l *Loop) bigStep(w *work) bool {
	return w.step.Op == PutFile && w.step.New.Entry.Size >= l.cfg.BigFile
}

func (l *Loop) onDisk(dir manifest.Path) bool {
	if dir == "" {
		return true
	}
	a, _ := l.anc.Get(dir)
	return a.Entry.IsDir()
}

// order sorts steps into the order in which a gateway may see them: what makes
// room first, then directories from the top, then files by the tree's rank,
// then removals from the bottom.
func (l *Loop) order(steps []Step) {
	replaced := pathSet{}
	for _, s := range steps {
		if s.Op != Remove && s.Op != PutDir && s.Expect.Entry.IsDir() {
			replaced.add(s.Path)
		}
	}
	group := func(s Step) int {
		switch s.Op {
		case Remove:
			for dir := s.Path.Dir(); dir != "" && len(replaced) > 0; dir = dir.Dir() {
				if replaced.has(dir) {
					return 0
				}
			}
			return 3
		case PutDir:
			return 1
		}
		return 2
	}
	rank := func(p manifest.Path) int {
		if l.cfg.Rank == nil {
			return 0
		}
		return l.cfg.Rank(p)
	}
	slices.SortStableFunc(steps, func(a, b Step) int {
		ga, gb := group(a), group(b)
		switch {
		case ga != gb:
			return ga - gb
		case ga == 0 || ga == 3:
			return manifest.Compare(b.Path, a.Path)
		case ga == 2:
			if ra, rb := rank(a.Path), rank(b.Path); ra != rb {
				return ra - rb
			}
		}
		return manifest.Compare(a.Path, b.Path)
	})
}

func (l *Loop) applied(ev Applied) {
	for _, r := range ev.Results {
		w := l.works.get(r.Path)
		if w == nil || w.phase != applying {
			continue
		}
		if !l.bigStep(w) {
			l.applying--
		}
		l.stepped(w, r)
	}
}

func (l *Loop) stepped(w *work, r StepResult) {
	if w.void {
		w.void = false
		if r.Outcome == StepDone {
			l.emit(Record{Updates: []Update{{Path: w.path}}})
		}
		l.lookNow(w)
		return
	}
	switch r.Outcome {
	case StepDone:
		if w.step.Repair {
			l.repairs.did(w.path, l.now)
		}
		l.setAncestor(w, r.Ancestor)
		if c, _ := l.view.Manifest.Get(w.path); c.Entry.Same(w.step.New.Entry) {
			w.pending = 0
		} else if r.Ancestor != nil && len(w.chain) > 0 && w.chain[0].old == r.Ancestor.Revision {
			w.pending = max(w.pending, w.chain[0].revision) // it goes on, but was followed up to here
		}
		l.forget(w.path)
		w.tries, w.setbacks, w.why, w.needed, w.cut, w.shut = 0, 0, "", false, false, false
		w.rested()
		w.fails, w.failing, w.noRoom = 0, "", false
		w.phase, w.obs = presumed, Observation{}
		delete(l.rulings, w.path)
		if w.again {
			l.lookNow(w)
		} else {
			l.ready.add(w.path)
		}
		l.wakeAround(w)
	case StepLeft:
		l.agree(w, Ancestor{}, false)
		l.hold(w, GuardLeft, "it still holds ignored files", w.step.Expect.Entry)
	case StepSurprise:
		w.setbacks++
		if r.Err != nil {
			w.why = r.Err.Error()
		}
		l.lookLater(w, backoff(busyDelay, failMax, w.setbacks))
	case StepBusy:
		w.why = "somebody is writing it"
		if r.Err != nil {
			w.why = r.Err.Error()
		}
		l.lookLater(w, backoff(busyDelay, busyMax, w.setbacks))
		w.setbacks++
	default:
		w.failing = "cannot be written"
		if r.Err != nil {
			w.failing = r.Err.Error()
		}
		first, most := failDelay, failMax
		if w.noRoom = r.Outcome == StepNoRoom; w.noRoom {
			first, most = noRoomDelay, noRoomDelay
		}
		l.lookLater(w, backoff(first, most, w.fails))
		w.fails++
	}
}
