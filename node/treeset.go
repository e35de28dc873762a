package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/syncer"
	"github.com/gatesync/gatesync/vfs"
)

// tree is one tree of this node: its settings and its syncer.
type tree struct {
	cfg   config.Tree
	syncr *syncer.Syncer
	gate  *vfs.Gate // of its root's path
}

// treeSet is this node's trees, in the order of the settings. Trees come in
// once the cluster knows them; none ever leaves. Safe for concurrent use.
type treeSet struct {
	log *slog.Logger
	lag lagTracker

	mu    sync.RWMutex
	list  []*tree
	waits int           // trees of the settings that are not open yet
	whole chan struct{} // closed once all are
}

func newTreeSet(count int, log *slog.Logger) *treeSet {
	s := &treeSet{log: log, waits: count, whole: make(chan struct{})}
	if count == 0 {
		close(s.whole)
	}
	return s
}

func (s *treeSet) add(t *tree) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, t)
	if s.waits--; s.waits == 0 {
		close(s.whole)
	}
}

// all returns the open trees.
func (s *treeSet) all() []*tree {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]*tree(nil), s.list...)
}

// complete tells whether every tree of the settings is open.
func (s *treeSet) complete() bool {
	select {
	case <-s.whole:
		return true
	default:
		return false
	}
}

// some returns the trees with these names; no names: all of them.
func (s *treeSet) some(names []string) ([]*tree, error) {
	all := s.all()
	if len(names) == 0 {
		return all, nil
	}
	var out []*tree
	for _, name := range names {
		t, ok := find(all, name)
		if !ok {
			return nil, fmt.Errorf("this node has no tree %q: see `gatesync status`", name)
		}
		out = append(out, t)
	}
	return out, nil
}

// await returns a tree, once it is open.
func (s *treeSet) await(ctx context.Context, name string) (*tree, error) {
	if t, ok := find(s.all(), name); ok {
		return t, nil
	}
	select {
	case <-s.whole:
	case <-ctx.Done():
	}
	trees, err := s.some([]string{name})
	if err != nil {
		return nil, err
	}
	return trees[0], nil
}

func find(all []*tree, name string) (*tree, bool) {
	for _, t := range all {
		if t.cfg.Name == name {
			return t, true
		}
	}
	return nil, false
}

// applied is the revision that all trees have applied.
func (s *treeSet) applied(ctx context.Context) manifest.Revision {
	if !s.complete() {
		return 0
	}
	lowest := ^manifest.Revision(0)
	for _, t := range s.all() {
		rev, err := t.syncr.Applied(ctx)
		if err != nil {
			return 0
		}
		lowest = min(lowest, rev)
	}
	if lowest == ^manifest.Revision(0) {
		return 0
	}
	return lowest
}

// waitApplied waits until all trees have applied a revision.
func (s *treeSet) waitApplied(ctx context.Context, rev manifest.Revision) (manifest.Revision, error) {
	select {
	case <-s.whole:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, t := range s.all() {
		g.Go(func() error { return t.syncr.WaitApplied(gctx, rev) })
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return s.applied(ctx), nil
}

// fit tells whether a tree could have this node as its steward.
func (s *treeSet) fit(name string) bool {
	t, ok := find(s.all(), name)
	return ok && t.syncr.Steady()
}

// states is what others need to know of the trees. It asks no disk.
func (s *treeSet) states() (out []*pb.TreeState) {
	for _, t := range s.all() {
		out = append(out, &pb.TreeState{Name: t.cfg.Name, Unfit: !t.syncr.Steady()})
	}
	return out
}

// settle waits until everything edited here before the call is in the log.
func (s *treeSet) settle(ctx context.Context, trees []*tree) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, t := range trees {
		g.Go(func() error {
			if err := t.syncr.Settle(gctx); err != nil {
				return fmt.Errorf("tree %s: %w", t.cfg.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// track notes when revisions were first seen, for the lag of each tree.
func (s *treeSet) track(ctx context.Context, log interface {
	revisions
	watcher
}) error {
	ch, stop := log.Watch()
	defer stop()
	for {
		s.lag.see(log.Revision(), time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-ch:
		}
	}
}
