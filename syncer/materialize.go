package syncer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// groupBytes bounds how much is staged before it is swapped in.
const groupBytes = 128 << 20

// lanes are the two ways into the tree: one for steps that take no time, one
// for large files. In each, one Apply is done after the other.
type lanes struct{ small, big *lane }

func newLanes() lanes { return lanes{small: newLane(), big: newLane()} }

type lane struct {
	mu    sync.Mutex
	queue []Apply
	ready chan struct{}
}

func newLane() *lane { return &lane{ready: make(chan struct{}, 1)} }

func (l lanes) add(a Apply) {
	to := l.small
	for _, s := range a.Steps {
		if s.Op == PutFile && s.New.Entry.Size >= bigFile {
			to = l.big
		}
	}
	to.mu.Lock()
	to.queue = append(to.queue, a)
	to.mu.Unlock()
	token(to.ready)
}

func (l *lane) next() (a Apply, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return a, false
	}
	a, l.queue = l.queue[0], l.queue[1:]
	return a, true
}

func (s *Syncer) runSmallLane(ctx context.Context) { s.runLane(ctx, s.lanes.small) }
func (s *Syncer) runBigLane(ctx context.Context)   { s.runLane(ctx, s.lanes.big) }

func (s *Syncer) runLane(ctx context.Context, l *lane) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.ready:
		}
		for ctx.Err() == nil {
			a, ok := l.next()
			if !ok || !s.begin(ctx, a.marker, a.Begun) {
				break
			}
			for rest := a.Steps; len(rest) > 0 && ctx.Err() == nil; {
				n := groupLen(rest)
				s.apply(ctx, rest[:n], a.Reached)
				rest = rest[n:]
			}
		}
	}
}

// groupLen tells how many of the steps are staged together.
func groupLen(steps []Step) int {
	var size int64
	for i, st := range steps {
		if st.Op == PutFile {
			size += st.New.Entry.Size
		}
		if size > groupBytes && i > 0 {
			return i
		}
	}
	return len(steps)
}

// job is one step on its way.
type job struct {
	step     Step
	name     string // in the staging directory, "" if nothing is staged
	ino      uint64 // of what we staged; what has another one came out of the tree
	mtime    int64  // that the staged file was given
	outcome  StepOutcome
	err      error
	ancestor *Ancestor
	conflict string // id of the conflict that was recorded for it in advance
	beside   bool   // what stood there has, or may have, the staged name besideName
	unplan   bool   // nothing of it is left in the staging directory
	out      bool   // what stood there has left the tree, as far as is known
	kept     bool   // what it displaced is in quarantine, and stays in the plan
	touched  bool   // the tree was changed: its directory has to be flushed
	moved    bool   // a move between the tree and the staging directory was tried: the name may hold anything
}

func (j *job) end(o StepOutcome, err error) {
	j.outcome, j.err = o, err
}

// surprise ends a step because something else stands there.
func (j *job) surprise(format string, args ...any) {
	j.end(StepSurprise, fmt.Errorf(format, args...))
}

// applier materializes one group of steps. It lives as long as the group.
type applier struct {
	s      *Syncer
	ctx    context.Context
	fs     vfs.FS
	jobs   []*job
	marker string // of the root, as it was before anything was done
	// reached is the revision that the steps come from.
	reached manifest.Revision
}

// apply does steps that belong together: stage all, flush once, persist the
// plan, swap one by one, flush once, persist the ancestor, answer.
func (s *Syncer) apply(ctx context.Context, steps []Step, reached manifest.Revision) {
	a := &applier{s: s, ctx: ctx, jobs: make([]*job, len(steps)), reached: reached, marker: s.root.name()}
	for i, st := range steps {
		a.jobs[i] = &job{step: st}
		if err := fit(st); err != nil {
			a.jobs[i].end(StepFailed, err)
		}
	}
	g, done, err := s.root.borrow()
	if err == nil {
		defer done()
		err = s.root.verify(g)
	}
	if err != nil {
		for _, j := range a.jobs {
			j.end(StepFailed, err)
		}
		a.answer(nil)
		return
	}
	a.fs = g.fs
	a.stage()
	for _, j := range a.jobs {
		if j.outcome != 0 || ctx.Err() != nil {
			continue
		}
		a.step(j)
	}
	a.finish()
}

// fit is the last look at what comes from elsewhere before the disk sees it:
// the machine and the loop refuse what fails here.
func fit(st Step) error {
	if err := st.New.Entry.ValidateAt(st.Path); err != nil {
		return fmt.Errorf("not done, no tree can hold it: %w", err)
	}
	return nil
}

// step does what a job says to the tree.
func (a *applier) step(j *job) {
	var err error
	if !j.step.Ordered {
		if err := a.s.sure(); err != nil {
			a.failed(j, err)
			return
		}
	}
	switch j.step.Op {
	case PutFile, PutSymlink:
		err = a.put(j)
	case PutDir:
		err = a.putDir(j)
	case SetMode:
		err = a.setMode(j)
	case Remove:
		err = a.remove(j)
	default:
		err = fmt.Errorf("unknown step %d", j.step.Op)
	}
	if err != nil {
		a.failed(j, err)
	}
}

// failed ends a job by an error of the file system or the store.
func (a *applier) failed(j *job, err error) {
	switch {
	case errors.Is(err, unix.EROFS):
		j.end(StepNoRoom, fmt.Errorf("%s is read-only: remount it writable, and it goes on by itself (%w)", a.fs.Path(), unix.EROFS))
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, blob.ErrNoRoom):
		j.end(StepNoRoom, err)
	case errors.Is(err, errNotSteward):
		j.end(StepSurprise, err)
	case errors.Is(err, vfs.ErrWriter), errors.Is(err, errOvertaken), errors.Is(err, errRestless):
		j.end(StepBusy, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist), errors.Is(err, vfs.ErrChanged),
		errors.Is(err, vfs.ErrNotRegular), errors.Is(err, vfs.ErrIsDir), errors.Is(err, vfs.ErrNotDir), errors.Is(err, vfs.ErrNotSymlink):
		j.end(StepSurprise, err)
	default:
		j.end(StepFailed, err)
	}
}

// finish flushes what was changed, persists what is agreed on now, and answers.
func (a *applier) finish() {
	files, dirs := map[manifest.Path]error{}, map[manifest.Path]error{}
	for _, j := range a.jobs {
		if j.touched {
			dirs[j.step.Path.Dir()] = nil
		}
		if j.touched && j.step.Op == SetMode {
			files[j.step.Path] = nil
		}
	}
	var err error
	if len(files)+len(dirs) > 0 {
		err = syncPaths(a.fs, files, dirs)
	}
	rec := recordJob{marker: a.marker}
	for _, j := range a.jobs {
		if failed := errors.Join(err, files[j.step.Path], dirs[j.step.Path.Dir()]); failed != nil && j.outcome == StepDone && j.touched {
			j.end(StepFailed, fmt.Errorf("flush: %w", failed))
		}
		a.cleanUp(j)
		if j.unplan {
			rec.unplan = append(rec.unplan, j.name)
		}
		switch {
		case j.outcome == StepDone:
			rec.updates = append(rec.updates, Update{Path: j.step.Path, Ancestor: j.ancestor})
		case j.conflict != "" && !j.out:
			rec.unconflict = append(rec.unconflict, j.conflict)
		}
	}
	a.answer(&rec)
}

// cleanUp removes what we staged and did not use. What came out of the tree is
// not ours to remove: the quarantine gets it, and what cannot be removed now.
func (a *applier) cleanUp(j *job) {
	if j.beside && !j.unplan && !j.kept { // the plan goes with its judgement
		a.quarantine(j, besideName(j.name))
		j.out = true
		if st, err := a.fs.StatStaged(j.name); err == nil && st.Ino == j.ino {
			_ = a.fs.RemoveStaged(j.name) // else the next start does
		}
	}
	if j.name == "" || j.unplan || j.kept {
		return
	}
	ours, err := !j.moved, error(nil)
	if !ours {
		st, serr := a.fs.StatStaged(j.name)
		ours, err = serr == nil && st.Ino == j.ino, serr
	}
	j.out = j.out || !ours
	if ours {
		err = a.fs.RemoveStaged(j.name)
		j.unplan = err == nil
	}
	if j.unplan = j.unplan || errors.Is(err, fs.ErrNotExist); !j.unplan {
		j.kept = true
		a.s.quarantine.add(displaced{
			name: j.name, plan: j.name, path: j.step.Path, ours: !j.moved, ino: j.ino, expect: j.step.Expect.Entry, winner: j.step.New.Revision,
		})
	}
}

// answer posts the results once the record (if any) is persisted.
func (a *applier) answer(rec *recordJob) {
	ev := Applied{}
	for _, j := range a.jobs {
		if j.outcome == 0 {
			continue // ctx has ended
		}
		ev.Results = append(ev.Results, StepResult{Path: j.step.Path, Outcome: j.outcome, Ancestor: j.ancestor, Err: j.err})
	}
	if rec == nil {
		a.s.inbox.post(ev)
		return
	}
	persisted := make(chan struct{})
	rec.done = func(err error) {
		defer close(persisted)
		if err == nil {
			a.s.inbox.post(ev)
		}
	}
	a.s.persister.add(*rec)
	select {
	case <-persisted:
	case <-a.ctx.Done():
	}
}

// plan lists, before anything is swapped, which staged name belongs to which
// path, and the conflicts that the swaps are going to end.
func (a *applier) plan() (rec recordJob) {
	rec.reached = a.reached
	for _, j := range a.jobs {
		if j.outcome != 0 {
			continue
		}
		if j.name != "" && !j.step.Expect.Entry.Absent() {
			rec.plan = append(rec.plan, planned{
				name: j.name, path: j.step.Path, ino: j.ino, expect: j.step.Expect, winner: j.step.New.Revision,
			})
		}
		if as := j.step.Aside; as != nil {
			c := newConflict(j.step.Path, as.Lost, as.Winner, as.Why, a.s.cfg.Now())
			j.conflict = c.ID
			rec.conflicts = append(rec.conflicts, c)
		}
	}
	return rec
}

// persistPlan writes the plan down. Content that is about to leave the tree is
// durable in the blob store first.
func (s *Syncer) persistPlan(rec recordJob) error {
	if len(rec.conflicts) > 0 {
		if err := s.cfg.Blobs.Flush(); err != nil {
			return fmt.Errorf("flush the blob store: %w", err)
		}
	}
	if len(rec.plan)+len(rec.conflicts) == 0 && uint64(rec.reached) <= s.reached.Load() {
		return nil
	}
	if err := s.rec.db.Update(rec.write); err != nil {
		return err
	}
	for {
		old := s.reached.Load()
		if uint64(rec.reached) <= old || s.reached.CompareAndSwap(old, uint64(rec.reached)) {
			return nil
		}
	}
}

// freshMTime is a modification time that every deployer takes for newer than
// old: some compare whole seconds. Its nanoseconds are never round, so that a
// later write, which takes the kernel's coarse clock, cannot repeat it.
func freshMTime(now time.Time, old int64) int64 {
	t := now.UnixNano()
	if old != 0 {
		t = max(t, old+int64(time.Second))
	}
	if t%int64(time.Millisecond) == 0 {
		t++
	}
	return t
}
