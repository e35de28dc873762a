package syncer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// Difference is one path on which disk and log differ, and what would end it.
type Difference struct {
	Path manifest.Path
	// What: "add", "change" or "delete" (of the committed tree if Local, of
	// the disk otherwise), "conflict", "held", "busy".
	What  string
	Local bool // the disk's edit, to be proposed
	Size  int64
	Why   string // for people
}

// Differences compares disk, ancestor and log as the loop would, and changes
// nothing: the dry run. Files whose stamp is unchanged are not read.
func (s *Syncer) Differences(ctx context.Context, fn func(Difference) error) error {
	status, anc, err := s.snapshot(ctx)
	if err != nil {
		return err
	}
	view, ok := s.cfg.Log.View(s.cfg.Tree)
	if !ok {
		return fmt.Errorf("the log does not know tree %q yet; wait for the node to catch up", s.cfg.Tree)
	}
	return s.survey(ctx, anc, view, false, func(v surveyed) error {
		d, differs := v.difference(status)
		if !differs {
			return nil
		}
		return fn(d)
	})
}

// snapshot returns the loop's state, whether it runs or not.
func (s *Syncer) snapshot(ctx context.Context) (LoopStatus, *AncestorMap, error) {
	type both struct {
		status LoopStatus
		anc    *AncestorMap
	}
	get := func(l *Loop) both { return both{l.Status(), l.Ancestor()} }
	if !s.running.Load() {
		b := get(s.loop)
		return b.status, b.anc, nil
	}
	b, err := ask(ctx, s, get)
	return b.status, b.anc, err
}

// surveyed is one path in its three states.
type surveyed struct {
	path manifest.Path
	obs  Observation
	anc  Ancestor
	node manifest.Node // committed

	rested time.Time // when it may have rested, if that is all that keeps it from being read
}

func (v surveyed) difference(st LoopStatus) (d Difference, differs bool) {
	disk := v.obs.Entry
	if v.obs.Sight == Gone {
		disk = manifest.Entry{}
	}
	d = Difference{Path: v.path, Size: v.node.Entry.Size, Why: v.obs.Why}
	switch v.obs.Sight {
	case Busy:
		d.What = "busy"
		return d, true
	case Unreadable, Unfit:
		d.What = "held"
		return d, true
	}
	if n, held := st.Notes[v.path]; held && n.Entry.Same(disk) {
		d.What, d.Why = "held", n.Why
		return d, true
	}
	switch manifest.Reconcile(manifest.Views{Ancestor: v.anc.node(), Disk: disk, Committed: v.node}) {
	case manifest.Offer:
		d.Local, d.Size = true, disk.Size
		d.What = changeWord(v.node.Entry, disk)
		switch unknown := st.Joiner && v.anc.Entry.Absent(); {
		case unknown:
			d.What, d.Why = "held", "stood here before the node joined"
		case st.Edits == manifest.EditsReported, st.Opening:
			d.What, d.Why = "held", "edited here, and this node's tree takes no edits (write: never)"
		case st.Edits == manifest.EditsRepaired:
			d.Local, d.Size = false, v.node.Entry.Size
			d.What, d.Why = changeWord(disk, v.node.Entry), "edited here, and this node's tree takes no edits (write: never): the edit is kept aside"
		}
	case manifest.Materialize:
		d.What = changeWord(disk, v.node.Entry)
	case manifest.Collide:
		d.What = "conflict"
	default:
		return d, false
	}
	return d, true
}

func changeWord(from, to manifest.Entry) string {
	switch {
	case from.Absent():
		return "add"
	case to.Absent():
		return "delete"
	}
	return "change"
}

// survey looks at every path that disk, ancestor or log know, in path order, but
// for files that have to rest first: they come last. With rehash every file is read.
func (s *Syncer) survey(ctx context.Context, anc *AncestorMap, view manifest.View, rehash bool, fn func(surveyed) error) error {
	g, done, err := s.root.borrow()
	if err != nil {
		return err
	}
	defer done()
	if err := s.root.verify(g); err != nil {
		return err
	}
	known := map[manifest.Path]struct{}{}
	anc.All(func(p manifest.Path, _ Ancestor) bool { known[p] = struct{}{}; return true })
	view.Manifest.All(func(p manifest.Path, _ manifest.Node) bool { known[p] = struct{}{}; return true })
	if err := s.listAll(ctx, g.fs, "", known); err != nil {
		return err
	}
	paths := make([]manifest.Path, 0, len(known))
	for p := range known {
		paths = append(paths, p)
	}
	slices.SortFunc(paths, manifest.Compare)
	var resting []surveyed // where leases do not work: they come last
	look := func(v surveyed, last bool) error {
		was := v.anc
		if rehash {
			was.Stamp = Stamp{}
		}
		v.obs, _ = s.look(ctx, g.fs, LookAt{Path: v.path, Was: was}, true, Digester{})
		if v.obs.Rest > 0 && !last {
			v.rested = time.Now().Add(v.obs.Rest)
			resting = append(resting, v)
			return nil
		}
		if s.cfg.Ignore.Match(v.path, v.obs.Entry.IsDir() || v.node.Entry.IsDir()) {
			return nil
		}
		return fn(v)
	}
	for _, p := range paths {
		if err := ctx.Err(); err != nil {
			return err
		}
		v := surveyed{path: p}
		v.anc, _ = anc.Get(p)
		v.node, _ = view.Manifest.Get(p)
		if err := look(v, false); err != nil {
			return err
		}
	}
	for _, v := range resting {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(v.rested)):
		}
		if err := look(v, true); err != nil {
			return err
		}
	}
	return s.root.verify(g)
}

// listAll adds everything below dir.
func (s *Syncer) listAll(ctx context.Context, root vfs.FS, dir manifest.Path, into map[manifest.Path]struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	names, err := root.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range names {
		p := dir.Join(e.Name)
		if s.cfg.Ignore.Match(p, e.Stat.Kind == manifest.Dir) {
			continue
		}
		into[p] = struct{}{}
		if p.Unfit() == "" && e.Stat.Kind == manifest.Dir {
			if err := s.listAll(ctx, root, p, into); err != nil {
				return err
			}
		}
	}
	return nil
}
