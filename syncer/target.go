package syncer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// Target is one tree that is brought to what somebody pushes: the executor of
// a Syncer without its loop, log and watcher. Root marker, records, staging,
// swap, look and quarantine are the same; what is to be done is decided by the
// caller, who has one thing done after the other (its methods are for one
// goroutine at a time).
type Target struct {
	s    *Syncer
	anc  *AncestorMap
	rev  manifest.Revision
	end  context.CancelFunc // of the persister
	last sync.WaitGroup
}

// busyPatience is how long a survey waits for files that somebody writes, and
// where leases do not work for files to have rested.
const busyPatience = 3 * time.Second

// ErrRootBare: the root has lost its marker.
var ErrRootBare = errors.New("the root has no marker")

// OpenTarget loads what is known about the tree and recovers what an unfinished
// push has left. Log, Carrier and everything about the loop in cfg are not
// used. Unlike a Syncer it waits for nothing: ErrRootLost where the root is not
// there or not a target's, ErrRootBare too where it has lost its marker, which
// fresh gives it anew: nothing is known then of what stands in it.
func OpenTarget(cfg Config, fresh bool) (*Target, error) {
	cfg.Generation, cfg.Since = 1, 1
	s, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	if lost, bare := s.root.state(); lost != "" {
		if _, err = s.root.find(context.Background(), s.first.Load(), bare && fresh, s.recoverStaging); errors.Is(err, errNoMarker) {
			err = fmt.Errorf("%w: %w", ErrRootBare, err)
		}
	}
	t := &Target{s: s}
	if err == nil {
		err = t.load()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	ctx, end := context.WithCancel(context.Background())
	t.end = end
	t.last.Go(func() { s.persister.run(ctx) })
	return t, nil
}

func (t *Target) load() error {
	known, err := t.s.rec.load(t.s.cfg.BootID)
	if err != nil {
		return err
	}
	t.anc, t.rev = known.state.Ancestors, known.state.Floor()
	return nil
}

// Close ends what works in the background and lets go of root and records.
func (t *Target) Close() error {
	t.end()
	t.last.Wait()
	return t.s.Close()
}

// Surveyed is one path of a target: what stands there, and what was agreed on
// when it was last pushed to.
type Surveyed struct {
	Observation
	Was Ancestor // the zero Entry: nothing, as far as is known
}

// Survey looks at everything that stands in the tree, or did, in path order.
// Files that are as they were agreed on are not read. What is ignored is left
// out. A directory that cannot be listed is Seen and says Why; everything known
// below it is Unreadable.
func (t *Target) Survey(ctx context.Context, fn func(Surveyed) error) error {
	g, done, err := t.s.root.borrow()
	if err != nil {
		return err
	}
	defer done()
	if err := t.s.root.verify(g); err != nil {
		return err
	}
	known, closed := map[manifest.Path]struct{}{}, map[manifest.Path]error{}
	t.anc.All(func(p manifest.Path, _ Ancestor) bool { known[p] = struct{}{}; return true })
	if err := t.list(ctx, g.fs, "", known, closed); err != nil {
		return err
	}
	paths := slices.SortedFunc(maps.Keys(known), manifest.Compare)
	deadline := time.Now().Add(busyPatience)
	for _, p := range paths {
		if err := ctx.Err(); err != nil {
			return err
		}
		v := Surveyed{Observation: Observation{Path: p}}
		v.Was, _ = t.anc.Get(p)
		if err := unlisted(p, closed); err != nil {
			v.Observation = unreadable(v.Observation, err)
		} else if v.Observation, err = t.restedLook(ctx, g.fs, p, v.Was, deadline); err != nil {
			return err
		}
		if t.s.cfg.Ignore.Match(p, v.Entry.IsDir() || v.Was.Entry.IsDir()) {
			continue
		}
		if err := closed[p]; err != nil {
			v.Why = err.Error()
		}
		if err := fn(v); err != nil {
			return err
		}
	}
	return t.s.root.verify(g)
}

// restedLook looks until a path is at rest, or the patience is over.
func (t *Target) restedLook(ctx context.Context, root vfs.FS, p manifest.Path, was Ancestor, deadline time.Time) (Observation, error) {
	for {
		obs, _ := t.s.look(ctx, root, LookAt{Path: p, Was: was}, true, Digester{})
		if obs.Sight != Busy || time.Now().After(deadline) {
			return obs, nil
		}
		select {
		case <-ctx.Done():
			return obs, ctx.Err()
		case <-time.After(quarantineFirst):
		}
	}
}

// list adds everything below dir to known, and to closed the directories that
// cannot be listed.
func (t *Target) list(ctx context.Context, root vfs.FS, dir manifest.Path, known map[manifest.Path]struct{}, closed map[manifest.Path]error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	names, err := root.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, vfs.ErrNotDir):
		return nil
	case err != nil && dir == "":
		return err
	case err != nil:
		closed[dir] = err
		return nil
	}
	for _, e := range names {
		p, err := manifest.ParsePath(string(dir.Join(e.Name)))
		if err != nil || t.s.cfg.Ignore.Match(p, e.Stat.Kind == manifest.Dir) {
			continue
		}
		known[p] = struct{}{}
		if e.Stat.Kind == manifest.Dir {
			if err := t.list(ctx, root, p, known, closed); err != nil {
				return err
			}
		}
	}
	return nil
}

// unlisted tells why nothing can be said about p: a directory above it cannot
// be listed.
func unlisted(p manifest.Path, closed map[manifest.Path]error) error {
	if len(closed) == 0 {
		return nil
	}
	for dir := p.Dir(); dir != ""; dir = dir.Dir() {
		if err := closed[dir]; err != nil {
			return err
		}
	}
	return nil
}

func (t *Target) look(ctx context.Context, p manifest.Path, was Ancestor, into PutContent) (Observation, error) {
	g, done, err := t.s.root.borrow()
	if err != nil {
		return Observation{}, err
	}
	defer done()
	obs, _ := t.s.look(ctx, g.fs, LookAt{Path: p, Was: was}, true, into)
	return obs, nil
}

// Keep takes what stands at a path into the blob store, durably with the next
// Apply: it is going to be displaced.
func (t *Target) Keep(ctx context.Context, p manifest.Path) (Observation, error) {
	return t.look(ctx, p, Ancestor{}, t.s.cfg.Blobs)
}

// Open opens what stands at a path, as the old version of a delta: whoever
// reads it compares the digest of what comes of it.
func (t *Target) Open(p manifest.Path) (OldVersion, error) {
	g, done, err := t.s.root.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	f, err := g.fs.Open(p)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// OldVersion is a file of the tree that is open for reading.
type OldVersion interface {
	ReadAt(b []byte, off int64) (int, error)
	Read(b []byte) (int, error)
	Close() error
}

// Fit is Syncer.Fit.
func (t *Target) Fit(p manifest.Path, e manifest.Entry) (manifest.Entry, error) { return t.s.Fit(p, e) }

// Revision is what the steps of the next push are to be numbered with.
func (t *Target) Revision() manifest.Revision { return t.rev + 1 }

// NewStep describes how a path gets from what was seen there to what it is to be.
func NewStep(obs Observation, to manifest.Node, why string) Step {
	s := Step{Path: obs.Path, New: to, Op: opFor(obs.Entry, to.Entry)}
	if obs.Sight == Seen {
		s.Expect = Ancestor{Entry: obs.Entry, Stamp: obs.Stamp}
	}
	if k := obs.Entry.Kind; why != "" && (k == manifest.File || k == manifest.Symlink) {
		s.Aside = &Aside{Lost: obs.Entry, Winner: to.Revision, Why: why}
	}
	return s
}

// Apply does the steps, in the order in which a gateway may see them: removals
// last and from the bottom. One result for each; fewer only where ctx ended.
func (t *Target) Apply(ctx context.Context, steps []Step, progress func(done int)) ([]StepResult, error) {
	t.s.loop.order(steps)
	var out []StepResult
	for rest := steps; len(rest) > 0 && ctx.Err() == nil; {
		n := min(groupLen(rest), applyMost)
		t.s.apply(ctx, rest[:n], rest[0].New.Revision)
		rest = rest[n:]
		events, _ := t.s.inbox.take()
		for _, ev := range events {
			if ev, ok := ev.(Applied); ok {
				out = append(out, ev.Results...)
			}
		}
		progress(len(out))
	}
	for _, r := range out {
		switch {
		case r.Outcome == StepLeft, r.Outcome == StepDone && r.Ancestor == nil:
			t.anc.Delete(r.Path)
		case r.Outcome == StepDone:
			t.anc.Set(r.Path, *r.Ancestor)
		}
	}
	return out, ctx.Err()
}

// Agree records what stands in the tree and is as it should be, once it is flushed.
func (t *Target) Agree(ctx context.Context, updates []Update) error {
	if len(updates) == 0 {
		return nil
	}
	done := make(chan error, 1)
	t.s.persister.add(recordJob{updates: updates, done: func(err error) { done <- err }})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-done:
		return err
	}
}

// Settle judges what was displaced while somebody may have written to it, as
// long as ctx lasts; what is left is judged when the target is opened again.
func (t *Target) Settle(ctx context.Context) {
	for {
		due, _ := t.s.quarantine.due(time.Now().Add(time.Hour))
		var later []displaced
		for _, d := range due {
			if err := t.s.judge(ctx, d); err != nil {
				later = append(later, d)
			}
		}
		for _, d := range later {
			t.s.quarantine.add(d)
		}
		if len(later) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(quarantineFirst):
		}
	}
}

// Conflicts lists what is kept aside, oldest first.
func (t *Target) Conflicts() ([]Conflict, error) { return t.s.Conflicts() }

// Busy tells whether a result is worth another try within this push.
func (r StepResult) Busy() bool {
	return r.Outcome == StepBusy || r.Outcome == StepSurprise && !errors.Is(r.Err, fs.ErrPermission)
}

// ConflictsIn lists what the records of a tree keep aside, which nobody has open.
func ConflictsIn(file string) (list []Conflict, err error) {
	err = inRecords(file, func(s *Syncer) error { list, err = s.Conflicts(); return err })
	return list, err
}

// DropConflictIn is DropConflict in records that nobody has open.
func DropConflictIn(file, id string) error {
	return inRecords(file, func(s *Syncer) error { return s.DropConflict(id) })
}

func inRecords(file string, fn func(*Syncer) error) error {
	r, err := openRecords(file)
	if err != nil {
		return err
	}
	return errors.Join(fn(&Syncer{rec: r}), r.close())
}
