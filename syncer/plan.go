package syncer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/sealed"
	"github.com/gatesync/gatesync/vfs"
)

// planned says, on disk, what a staged name is about. It is written before the
// first swap and removed after what the swap displaced has been dealt with. The
// inode tells, after a crash, what we staged and never swapped (to be removed)
// from what came out of the tree (to be judged).
type planned struct {
	name   string
	path   manifest.Path
	ino    uint64 // of what we staged; 0 where the name was for taking out
	expect Ancestor
	winner manifest.Revision
}

func (r *records) planned() (map[string]planned, error) {
	out := map[string]planned{}
	err := r.db.View(func(tx *sealed.Tx) error {
		return tx.Bucket(bucketPlan).ForEach(func(k, v []byte) error {
			p, err := decodePlanned(string(k), v)
			out[string(k)] = p
			return err
		})
	})
	return out, err
}

// recoverStaging empties the staging directory of what an earlier run left
// there: Open calls it, and whoever finds a lost root again. Steps that began
// before it was lost may still be under way. What cannot be judged now goes to the quarantine. other:
// it is not the directory that the plan was made for.
func (s *Syncer) recoverStaging(ctx context.Context, root vfs.FS, other bool) error {
	plan, err := s.rec.planned()
	if err != nil {
		return err
	}
	names, err := root.ListStaged()
	if err != nil {
		return fmt.Errorf("list the staging directory: %w", err)
	}
	inHand := s.quarantine.names()
	there := map[string]bool{}
	for _, name := range names {
		key := strings.TrimSuffix(name, "~")
		there[key] = true
		if inHand[name] || s.ofThisRun(key) {
			continue
		}
		p, known := plan[key]
		if err := s.recoverOne(ctx, root, name, p, known, other || s.rec.unplanned); err != nil {
			return fmt.Errorf("recover %q in the staging directory: %w", name, err)
		}
	}
	done := recordJob{}
	for key := range plan {
		if !there[key] && !other && !s.ofThisRun(key) {
			done.unplan = append(done.unplan, key)
		}
	}
	if len(done.unplan) == 0 && !s.rec.unplanned {
		return nil
	}
	err = s.rec.db.Update(func(tx *sealed.Tx) error {
		// What is staged and not planned from now on was staged from now on.
		return errors.Join(done.write(tx), putAll(tx.Bucket(bucketMeta), map[string][]byte{metaUnplanned: nil}))
	})
	if err == nil {
		s.rec.unplanned = false
	}
	return err
}

// ofThisRun tells whether a staged name was made by this run: whoever made it is
// still at work with it, perhaps through the root of before, or has handed it to
// the quarantine.
func (s *Syncer) ofThisRun(name string) bool { return strings.HasPrefix(name, s.stagedBy+"-") }

// recoverOne deals with one staged name. unsure: what is not in the plan may
// be in nobody's any more.
func (s *Syncer) recoverOne(ctx context.Context, root vfs.FS, name string, p planned, known, unsure bool) error {
	st, err := root.StatStaged(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	beside := strings.HasSuffix(name, "~")
	switch {
	case known && !beside && st.Ino == p.ino:
		s.log.Info("removing what was staged and never put in place", "path", p.path)
		return root.RemoveStaged(name) // its plan goes with the next start: it may be about name~ too
	case known && st.Kind == manifest.Dir:
		if now, err := root.Lstat(p.path); err == nil && now.Ino == p.ino {
			return root.Exchange(name, p.path) // a directory that came out by mistake; ours is removed the next time
		}
		s.log.Error("a directory is left in the staging directory; move it back by hand", "path", p.path, "staged", name)
		return nil
	case !known && !unsure:
		// Not in the plan: never swapped, so nothing but our own copy.
		return root.RemoveStaged(name)
	case !known:
		// This may be anybody's only copy.
		p = planned{name: strings.TrimSuffix(name, "~"), path: manifest.Path("unknown-" + name)}
		if err := s.rec.db.Update(recordJob{plan: []planned{p}}.write); err != nil {
			return err
		}
	}
	d := displaced{name: name, plan: p.name, path: p.path, expect: p.expect.Entry, winner: p.winner}
	if err := s.judgeIn(ctx, root, d); err != nil {
		s.log.Info("a displaced file is judged later", "path", p.path, "err", err)
		s.quarantine.add(d)
	}
	return nil
}

// names tells which staged names are in quarantine.
func (q *quarantine) names() map[string]bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := map[string]bool{}
	for _, d := range q.items {
		out[d.name] = true
	}
	return out
}
