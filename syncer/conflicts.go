package syncer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"time"

	"github.com/zeebo/blake3"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/sealed"
	"github.com/gatesync/gatesync/vfs"
)

// Conflict is content that stood in the tree and lost: it is kept in the blob
// store, never in the tree, until a person restores or drops it.
type Conflict struct {
	ID     string
	Path   manifest.Path
	Lost   manifest.Entry
	Winner manifest.Revision // that stands in the tree instead
	Time   int64             // Unix nanoseconds
	Why    string
}

// ErrNoConflict: no conflict has this id.
var ErrNoConflict = errors.New("no such conflict; `gatesync conflicts` lists them")

// newConflict names a conflict by what it is about, so that recording it again
// after a crash makes no second one.
func newConflict(p manifest.Path, lost manifest.Entry, winner manifest.Revision, why string, now time.Time) Conflict {
	h := blake3.New()
	fmt.Fprintf(h, "%q %d %s %q %d", string(p), lost.Kind, lost.Digest, lost.Target, winner)
	return Conflict{
		ID: "x-" + hex.EncodeToString(h.Sum(nil)[:5]), Path: p, Lost: lost, Winner: winner, Time: now.UnixNano(), Why: why,
	}
}

// Conflicts lists what is kept aside, oldest first. Safe for concurrent use.
func (s *Syncer) Conflicts() ([]Conflict, error) {
	var out []Conflict
	err := s.rec.db.View(func(tx *sealed.Tx) error {
		return tx.Bucket(bucketConflicts).ForEach(func(k, v []byte) error {
			c, err := decodeConflict(string(k), v)
			out = append(out, c)
			return err
		})
	})
	sort.Slice(out, func(i, j int) bool { return out[i].Time < out[j].Time })
	return out, err
}

// Conflict returns one conflict; ErrNoConflict.
func (s *Syncer) Conflict(id string) (c Conflict, err error) {
	err = s.rec.db.View(func(tx *sealed.Tx) error {
		v, err := tx.Bucket(bucketConflicts).Get([]byte(id))
		if err != nil {
			return err
		}
		if v == nil {
			return fmt.Errorf("%q: %w", id, ErrNoConflict)
		}
		c, err = decodeConflict(id, v)
		return err
	})
	return c, err
}

// ConflictContent opens what was kept aside.
func (s *Syncer) ConflictContent(id string) (io.ReadCloser, error) {
	c, err := s.Conflict(id)
	if err != nil {
		return nil, err
	}
	if !c.Lost.HasContent() {
		return nil, fmt.Errorf("%q kept a %s aside, which has no content", id, c.Lost)
	}
	return s.cfg.Blobs.Open(c.Lost.Digest)
}

// DropConflict forgets a conflict; its content goes with the next collection.
func (s *Syncer) DropConflict(id string) error {
	if _, err := s.Conflict(id); err != nil {
		return err
	}
	return s.rec.db.Update(recordJob{unconflict: []string{id}}.write)
}

// RestoreConflict puts kept content back into the tree, as an edit like any
// other: it is proposed, and spreads if nobody was faster. What stands there
// now goes through the same look as always: an unseen edit is not lost.
func (s *Syncer) RestoreConflict(ctx context.Context, id string) error {
	c, err := s.Conflict(id)
	if err != nil {
		return err
	}
	if s.cfg.Loop.Edits != manifest.EditsOffered {
		return fmt.Errorf("%q: this node's tree takes no edits (write: never), and what is restored is one: `gatesync conflicts show %s` prints it, write it on a node that takes edits", c.Path, id)
	}
	g, done, err := s.root.borrow()
	if err != nil {
		return err
	}
	defer done()
	if err := s.root.verify(g); err != nil {
		return err
	}
	obs, err := s.settledLook(ctx, g.fs, c.Path)
	if err != nil {
		return err
	}
	j := &job{step: Step{
		Path: c.Path, Op: PutFile, Expect: Ancestor{Entry: obs.Entry, Stamp: obs.Stamp},
		New: manifest.Node{Entry: c.Lost}, Ordered: true, // an edit like any other
	}}
	if c.Lost.Kind == manifest.Symlink {
		j.step.Op = PutSymlink
	}
	if obs.Sight == Gone {
		j.step.Expect = Ancestor{}
	}
	a := &applier{s: s, ctx: ctx, fs: g.fs, jobs: []*job{j}}
	a.stage()
	if j.outcome == 0 {
		a.step(j)
	}
	if j.touched {
		if err := g.fs.SyncDir(c.Path.Dir()); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
	}
	a.cleanUp(j)
	if j.unplan {
		s.persister.add(recordJob{unplan: []string{j.name}})
	}
	if j.outcome != StepDone {
		return fmt.Errorf("%q was not restored: %w; try again", c.Path, j.err)
	}
	s.inbox.witness([]manifest.Path{c.Path}, nil)
	return s.DropConflict(id)
}

// settledLook looks at a path until it is at rest.
func (s *Syncer) settledLook(ctx context.Context, root vfs.FS, p manifest.Path) (Observation, error) {
	for {
		if _, err := root.Lstat(p.Dir()); errors.Is(err, fs.ErrNotExist) {
			return Observation{}, fmt.Errorf("its directory %q is gone: make it, then restore again", p.Dir())
		}
		obs, _ := s.look(ctx, root, LookAt{Path: p}, true, s.cfg.Blobs)
		switch obs.Sight {
		case Seen, Gone:
			return obs, nil
		case Busy:
		default:
			return obs, fmt.Errorf("%q: %s", p, obs.Why)
		}
		select {
		case <-ctx.Done():
			return obs, fmt.Errorf("%q: %s: %w", p, obs.Why, ctx.Err())
		case <-time.After(quarantineFirst):
		}
	}
}

// Live calls fn for all content that this tree's records stand for: kept
// conflicts, held content, and what the disk agrees on. Blob collection must
// spare it.
func (s *Syncer) Live(fn func(p manifest.Path, e manifest.Entry, why string)) error {
	conflicts, err := s.Conflicts()
	if err != nil {
		return err
	}
	for _, c := range conflicts {
		if c.Lost.HasContent() {
			fn(c.Path, c.Lost, "kept aside as conflict "+c.ID)
		}
	}
	return s.rec.db.View(func(tx *sealed.Tx) error {
		err := tx.Bucket(bucketNotes).ForEach(func(k, v []byte) error {
			n, err := decodeNote(v)
			if err == nil && n.Entry.HasContent() {
				fn(noteKey(k), n.Entry, "held by "+string(n.Guard))
			}
			return err
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketAncestor).ForEach(func(k, v []byte) error {
			a, err := decodeAncestor(v)
			if err == nil && a.Entry.HasContent() {
				fn(manifest.Path(k), a.Entry, "on this node's disk")
			}
			return err
		})
	})
}

// Capture reads a file of the tree into the blob store: content that the store
// has lost may still stand there.
func (s *Syncer) Capture(ctx context.Context, p manifest.Path) error {
	g, done, err := s.root.borrow()
	if err != nil {
		return err
	}
	defer done()
	obs, _ := s.look(ctx, g.fs, LookAt{Path: p}, true, s.cfg.Blobs)
	if obs.Sight != Seen {
		return fmt.Errorf("%q: %s", p, obs.Why)
	}
	return nil
}
