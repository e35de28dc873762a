package syncer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

const (
	quarantineFirst = 50 * time.Millisecond
	quarantineMost  = 2 * time.Second
)

// displaced is what came out of the tree and may hold an edit that nobody has
// seen: somebody had it open for writing, or it was not what was expected. It
// stays in the plan until it is judged, so that a crash does not lose it.
type displaced struct {
	name   string        // where it is staged
	plan   string        // its key in the plan
	path   manifest.Path // where it stood
	ours   bool          // nothing but what we staged was ever under the name
	ino    uint64        // of what we staged under it; 0: unknown, or nothing
	expect manifest.Entry
	winner manifest.Revision

	tries int
	at    time.Time // not before
}

// quarantine keeps displaced files until nobody writes to them any more.
type quarantine struct {
	mu    sync.Mutex
	items []displaced
	wake  chan struct{}
}

func newQuarantine() *quarantine { return &quarantine{wake: make(chan struct{}, 1)} }

func (q *quarantine) add(d displaced) {
	q.mu.Lock()
	q.items = append(q.items, d)
	q.mu.Unlock()
	token(q.wake)
}

func (q *quarantine) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// due removes and returns what is to be looked at now, and says when the next
// one is.
func (q *quarantine) due(now time.Time) (out []displaced, next time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	next = time.Hour
	rest := q.items[:0]
	for _, d := range q.items {
		if wait := d.at.Sub(now); wait > 0 {
			next = min(next, wait)
			rest = append(rest, d)
		} else {
			out = append(out, d)
		}
	}
	q.items = rest
	return out, next
}

// runQuarantine judges displaced files. One goroutine of Run; what is left at
// its end is found by the next Open.
func (s *Syncer) runQuarantine(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, next := s.quarantine.due(time.Now())
		for i, d := range due {
			if err := s.judge(ctx, d); err != nil {
				if ctx.Err() != nil {
					return
				}
				d.tries++
				pause := min(quarantineFirst<<min(d.tries, 10), quarantineMost)
				d.at = time.Now().Add(pause)
				next = min(next, pause)
				if !errors.Is(err, vfs.ErrWriter) && !errors.Is(err, errRestless) && d.tries == 3 {
					s.log.Warn("a displaced file cannot be judged yet; it is kept in the staging directory", "path", d.path, "err", err)
				}
				s.quarantine.add(d)
			}
			due[i] = displaced{}
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-s.quarantine.wake:
		case <-timer.C:
		}
	}
}

func (s *Syncer) judge(ctx context.Context, d displaced) error {
	g, done, err := s.root.borrow()
	if err != nil {
		return err
	}
	defer done()
	return s.judgeIn(ctx, g.fs, d)
}

// judgeIn ends a displaced file: what the log knows is dropped, everything else
// is kept aside as a conflict first.
func (s *Syncer) judgeIn(ctx context.Context, root vfs.FS, d displaced) error {
	ours := d.ours
	if st, err := root.StatStaged(d.name); err == nil && d.ino != 0 && st.Ino == d.ino {
		ours = true // not displaced at all
	}
	if ours {
		if err := root.RemoveStaged(d.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.persister.add(recordJob{unplan: []string{d.plan}})
		return nil
	}
	lost, err := s.captureStaged(ctx, root, d)
	if errors.Is(err, fs.ErrNotExist) {
		s.persister.add(recordJob{unplan: []string{d.plan}})
		return nil
	}
	if err != nil {
		return err
	}
	rec := recordJob{}
	if !lost.SameContent(d.expect) {
		if err := s.cfg.Blobs.Flush(); err != nil {
			return err
		}
		c := newConflict(d.path, lost, d.winner, "was edited while another node's change was put in its place", s.cfg.Now())
		rec.conflicts = append(rec.conflicts, c)
		s.log.Warn("an unseen edit was displaced and is kept aside", "path", d.path, "conflict", c.ID)
	}
	if len(rec.conflicts) > 0 {
		if err := s.rec.db.Update(rec.write); err != nil {
			return fmt.Errorf("record a conflict: %w", err)
		}
	}
	if err := root.RemoveStaged(d.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.persister.add(recordJob{unplan: []string{d.plan}})
	return nil
}

// captureStaged takes a displaced file's content into the blob store, once
// nobody writes to it, and says what it is.
func (s *Syncer) captureStaged(ctx context.Context, root vfs.FS, d displaced) (lost manifest.Entry, err error) {
	st, err := root.StatStaged(d.name)
	if err != nil {
		return lost, err
	}
	lost = manifest.Entry{Kind: st.Kind, Mode: s.modeOf(st, d.expect)}
	switch st.Kind {
	case manifest.Symlink:
		lost.Target, err = root.ReadlinkStaged(d.name)
		lost.Size, lost.Digest = int64(len(lost.Target)), manifest.DigestOf([]byte(lost.Target))
		return lost, err
	case manifest.File:
	default:
		return lost, fmt.Errorf("%s was displaced from %q: look at %q in the staging directory", kindName(st.Kind), d.path, d.name)
	}
	f, err := root.OpenStaged(d.name)
	if err != nil {
		return lost, err
	}
	defer f.Close()
	ref, st, err := s.capture(ctx, f, manifest.Path("staged/"+d.name), s.cfg.Blobs)
	lost.Size, lost.Digest, lost.MTime = ref.Size, ref.Digest, st.MTime
	return lost, err
}
