package syncer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// inherit collects what removed nodes have left beside the tree: their nonces and
// what they had staged. It is for whoever writes to the tree. again: something is
// left to be collected.
//
// It is a fence, too: a node that was stopped in the middle of a step, and wakes
// up after it was removed, has nothing left that it could put in place.
func (p *placer) inherit(ctx context.Context) (again bool) {
	ids, g := p.removed()
	if len(ids) == 0 || p.s.sure() != nil || p.s.root.verify(g) != nil {
		return len(ids) > 0
	}
	for _, id := range ids {
		if err := p.s.inheritFrom(ctx, g.fs, id); err != nil {
			p.s.log.Debug("cannot collect what a removed node has left beside the tree", "node", id, "err", err)
			again = true
			continue
		}
		p.s.log.Info("what a removed node had left beside the tree was collected", "node", id)
		p.mu.Lock()
		delete(p.shore.found, cluster.NodeID(id))
		p.mu.Unlock()
	}
	return again
}

// removed lists the removed nodes that have left something in the root, as far as
// was seen: their nonces, and, looked for once, their staging directories.
func (p *placer) removed() (ids []string, g *rootGen) {
	p.mu.Lock()
	g, looked := p.gen, p.stagers == p.gen
	for id := range p.shore.found {
		ids = append(ids, string(id))
	}
	p.mu.Unlock()
	if !looked {
		all, err := g.fs.Stagers()
		ids = append(ids, all...)
		p.mu.Lock()
		if err == nil && p.gen == g && p.heard && !p.anyRemoved(all) {
			p.stagers = g
		}
		p.mu.Unlock()
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !p.s.cfg.Mounts.Removed(cluster.NodeID(id)) })
	slices.Sort(ids)
	return slices.Compact(ids), g
}

func (p *placer) anyRemoved(ids []string) bool {
	return slices.ContainsFunc(ids, func(id string) bool { return p.s.cfg.Mounts.Removed(cluster.NodeID(id)) })
}

// inheritFrom takes over what a removed node had staged, its nonce last.
func (s *Syncer) inheritFrom(ctx context.Context, root vfs.FS, id string) error {
	names, err := root.StagedBy(id)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range names {
		if err := s.inheritOne(ctx, root, id, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err == nil {
		if err := root.DropStager(id); err != nil {
			return err
		}
	}
	return root.RemoveNote(noncePrefix + id)
}

// inheritOne takes one staged file over. It may be what came out of the tree, and
// nobody else's: what is not known here is kept aside.
func (s *Syncer) inheritOne(ctx context.Context, root vfs.FS, id, name string) error {
	as := s.stagedName()
	plan := planned{name: as, path: manifest.Path("unknown-" + name)}
	if err := s.rec.db.Update(recordJob{plan: []planned{plan}}.write); err != nil {
		return err
	}
	if err := root.TakeOver(id, name, as); err != nil {
		s.persister.add(recordJob{unplan: []string{as}})
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was still about to end
		}
		return err
	}
	if s.knows(ctx, root, as) && root.RemoveStaged(as) == nil {
		s.persister.add(recordJob{unplan: []string{as}})
		return nil
	}
	s.quarantine.add(displaced{name: as, plan: as, path: plan.path})
	return nil
}

// knows tells whether a staged file's content is in the blob store and stays there,
// because the log stands for it; or that it has none.
func (s *Syncer) knows(ctx context.Context, root vfs.FS, name string) bool {
	st, err := root.StatStaged(name)
	if err != nil || st.Kind != manifest.File {
		return err == nil && st.Kind == manifest.Symlink
	}
	ref, err := digestStaged(ctx, root, name)
	return err == nil && (ref.Size == 0 || s.cfg.Blobs.Has(ref.Digest) && s.cfg.Mounts.Stands(ref))
}

// digestStaged reads a staged file; errOvertaken where somebody wrote meanwhile.
func digestStaged(ctx context.Context, root vfs.FS, name string) (ref manifest.BlobRef, err error) {
	f, err := root.OpenStaged(name)
	if err != nil {
		return ref, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ref, err
	}
	if ref, err = (Digester{}).Put(&watchedReader{ctx: ctx, f: f, left: st.Size}); err != nil {
		return ref, err
	}
	after, err := f.Stat()
	if err == nil && (stampOf(after) != stampOf(st) || ref.Size != st.Size) {
		err = errOvertaken
	}
	return ref, err
}
