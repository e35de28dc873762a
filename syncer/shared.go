package syncer

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// never is a pause that nobody sees the end of.
const never = 10 * 365 * 24 * time.Hour

// onMount tells whether other nodes have the tree's directory too.
func (s *Syncer) onMount() bool {
	at, _ := s.placer.current()
	return at.Mount != ""
}

// scans tells whether this node scans its tree from time to time: of the nodes
// of a mount only the steward does, so that an idle file server is not asked
// the more the more nodes there are.
func (s *Syncer) scans() bool {
	at, taken := s.placer.current()
	return at.Mount == "" || string(at.Steward) == s.cfg.Self && taken == at.Epoch
}

// keep records content that is kept aside without a step. What cannot be
// recorded now stays in the blob store until it is collected.
func (s *Syncer) keep(e Keep) {
	s.bg.Go(func() {
		err := s.cfg.Blobs.Flush()
		c := newConflict(e.Path, e.Aside.Lost, e.Aside.Winner, e.Aside.Why, s.cfg.Now())
		if err == nil {
			err = s.rec.db.Update(recordJob{conflicts: []Conflict{c}}.write)
		}
		if err != nil {
			s.log.Error("cannot keep content aside", "path", e.Path, "err", err)
			return
		}
		s.log.Warn("content lost on the shared tree and is kept aside", "path", e.Path, "conflict", c.ID, "why", e.Aside.Why)
	})
}

// learned follows up on what the disk was found to agree on: directories that
// another machine made tell no events of their own yet, and local watchers
// have heard nothing of other machines' writes.
func (s *Syncer) learned(ctx context.Context, updates []Update) {
	if !s.onMount() {
		return
	}
	var nudges []manifest.Path
	for _, u := range updates {
		switch {
		case u.Ancestor == nil:
		case u.Ancestor.Entry.IsDir():
			if n := s.watcher.current(); n != nil && !n.watches(u.Path) {
				s.scanner.request(u.Path)
			}
		case u.News && s.cfg.Nudge && u.Ancestor.Entry.Kind == manifest.File:
			nudges = append(nudges, u.Path)
		}
	}
	if len(nudges) > 0 {
		s.bg.Go(func() { s.nudge(ctx, nudges) })
	}
}

// nudge wakes local watchers of files.
func (s *Syncer) nudge(ctx context.Context, paths []manifest.Path) {
	g, done, err := s.root.borrow()
	if err != nil {
		return
	}
	defer done()
	for _, p := range paths {
		if ctx.Err() != nil {
			return
		}
		if err := g.fs.Nudge(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Debug("cannot wake the watchers of a file", "path", p, "err", err)
		}
	}
}

// lookShared is look on a disk that other machines write to as well: what stat
// says may be half a minute old, an opened file and an opened directory tell
// the truth.
func (s *Syncer) lookShared(ctx context.Context, root vfs.FS, at LookAt, big bool, into PutContent) (obs Observation, later bool) {
	obs.Path = at.Path
	if err := root.Refresh(at.Path.Dir()); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, vfs.ErrNotDir) {
		return unreadable(obs, err), false
	}
	st, err := root.Lstat(at.Path)
	if err != nil || st.Kind != manifest.File {
		return s.lookAt(ctx, root, at, big, into)
	}
	f, err := root.OpenFresh(at.Path)
	if err != nil {
		return s.lookAt(ctx, root, at, big, into) // says what it is
	}
	defer f.Close()
	if st, err = f.Stat(); err != nil {
		return unreadable(obs, err), false
	}
	settled := at.Want.Absent() || at.Want.Same(at.Was.Entry) // nothing new is expected there
	if settled && s.unchanged(st, at.Was) {
		obs.Sight, obs.Stamp, obs.Entry = Seen, stampOf(st), at.Was.Entry
		return obs, false
	}
	if !big && st.Size >= bigFile {
		return obs, true
	}
	if at.Want.Kind == manifest.File && st.Size == at.Want.Size && s.modeOf(st, at.Want) == at.Want.Mode {
		r := &watchedReader{ctx: ctx, f: f, left: st.Size}
		ref, err := Digester{}.Put(io.Reader(r))
		after, serr := f.Stat()
		if err == nil && serr == nil && r.err == nil && ref.Digest == at.Want.Digest && stampOf(after) == stampOf(st) {
			obs.Sight, obs.Entry, obs.Stamp = Seen, at.Want, stampOf(st)
			obs.Entry.MTime = st.MTime
			obs.Stamp.Racy = true // it did not rest: it may have been written again within one tick
			return obs, false
		}
	}
	obs.Sight, obs.Stamp = Seen, stampOf(st)
	obs.Entry = manifest.Entry{Kind: st.Kind, Mode: s.modeOf(st, at.Was.Entry)}
	return s.lookFile(ctx, root, obs, at.Was.Entry, into), false
}
