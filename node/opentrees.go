package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/syncer"
	"github.com/gatesync/gatesync/vfs"
)

// openTrees opens every tree of the settings and runs it. A tree that is new
// (to the cluster, after init or an edit of gatesync.yaml; or to this node)
// has to be agreed upon first; until then the others go on.
func (n *Node) openTrees(s *stages) error {
	for _, t := range n.cfg.Trees {
		gate := vfs.NewGate(t.Path)
		n.gates = append(n.gates, gate)
		if f, known := n.treeFileOf(t.Name); known && !f.New {
			if mount, err := gate.Mount(); err != nil || !mount.Local() { // it may hang, and the node has to come up
				s.run("tree "+t.Name, treeLimit, func(ctx context.Context) error { return n.openAndRun(ctx, t, f, gate) })
				continue
			}
			tree, err := n.openTree(t, f, gate)
			if err != nil {
				return err
			}
			s.run("tree "+t.Name, treeLimit, func(ctx context.Context) error { return n.runTree(ctx, tree) })
			continue
		}
		s.run("tree "+t.Name, treeLimit, func(ctx context.Context) error {
			f, err := n.agree(ctx, t.Name)
			if err != nil {
				return err
			}
			return n.openAndRun(ctx, t, f, gate)
		})
	}
	return nil
}

func (n *Node) openAndRun(ctx context.Context, t config.Tree, f treeFile, gate *vfs.Gate) error {
	defer context.AfterFunc(ctx, gate.Hurry)()
	tree, err := n.openTree(t, f, gate)
	if err != nil {
		return err
	}
	return n.runTree(ctx, tree)
}

// treeLimit is how long a syncer may take to stop. One that hangs in a mount
// is left behind.
const treeLimit = 2500 * time.Millisecond

// openTree opens a tree, through the gate of its path: a mount that hangs holds
// nobody else up.
func (n *Node) openTree(t config.Tree, f treeFile, gate *vfs.Gate) (*tree, error) {
	var mask uint32
	if t.ModeMask != 0 {
		mask = syncer.DefaultModeMask &^ uint32(t.ModeMask)
	}
	edits, err := manifest.ParseEdits(n.cfg.Direction(t))
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", t.Name, err)
	}
	sy, err := syncer.Open(syncer.Config{
		Self: string(n.file.Node), Tree: t.Name,
		ClusterID: n.file.Cluster, TreeID: f.ID, Generation: f.Generation, Since: f.KeepFrom, Aside: f.Returned,
		OpenRoot: func() (vfs.FS, error) {
			return n.apart.openRoot(t.Name, gate, t.Path, vfs.Options{Node: string(n.file.Node)})
		},
		Records: n.dir.records(t.Name),
		Blobs:   n.blobs, Carrier: n.carrier, Log: n.counted,
		Ignore: n.ignores[t.Name], ModeMask: mask,
		Joiner: !f.Made,
		Loop: syncer.LoopConfig{
			Adopt:     n.file.Adopt,
			Rank:      manifest.Rank(t.Preset),
			Edits:     edits,
			MaxDelete: manifest.DeleteLimit{Count: n.cfg.Guard.MaxDelete.Count, Percent: n.cfg.Guard.MaxDelete.Percent},
		},
		Mounts: &treeMounts{tree: t.Name, log: n.log}, Storage: t.Storage, Nudge: t.Nudge,
		ScanInterval: n.cfg.Scan.Std(), Reserve: int64(n.cfg.FreeReserve), BootID: n.bootID,
		Logger: n.slog,
	})
	if err != nil {
		return nil, err
	}
	tree := &tree{cfg: t, syncr: sy, gate: gate}
	n.trees.add(tree)
	return tree, nil
}

// runTree runs a tree until ctx ends; a dry run only holds it open.
func (n *Node) runTree(ctx context.Context, t *tree) error {
	defer context.AfterFunc(ctx, t.gate.Hurry)()
	var err error
	if n.opts.DryRun {
		<-ctx.Done()
	} else {
		err = t.syncr.Run(ctx)
	}
	return errors.Join(err, t.syncr.Close())
}

// agree makes the cluster know a tree and tells what its root's marker must
// say. Who was first has made the tree; everybody else is a joiner of it.
func (n *Node) agree(ctx context.Context, name string) (treeFile, error) {
	mine := treeFile{Name: name, ID: cluster.NewTreeID(), Generation: 1}
	if f, ok := n.treeFileOf(name); ok {
		mine = f
	}
	said := false
	for {
		for _, t := range n.log.Trees() {
			if t.Name != name {
				continue
			}
			agreed := treeFile{
				Name: name, ID: t.ID, Generation: t.Generation,
				Made: t.ID == mine.ID && !mine.Returned, Returned: mine.Returned,
			}
			return agreed, n.remember(agreed)
		}
		// A returner makes no tree: what it knows is of a life that is over.
		err := errUnknownTree
		if !mine.Returned {
			err = n.putTree(ctx, mine)
		}
		if err != nil {
			if mine.Returned && n.caughtUp() && !said {
				said = true
				n.slog.Warn("the recovered cluster does not know a tree of this node, which leaves it alone: to have it again, add it to gatesync.yaml of another member first", "tree", name)
			}
			n.slog.Debug("cannot add the tree to the cluster yet", "tree", name, "err", err)
			select {
			case <-ctx.Done():
				return mine, ctx.Err()
			case <-time.After(agreePause(err)):
			}
		}
	}
}

// agreePause is the pause between attempts to make the cluster know a tree: one
// that is refused is an entry of the log all the same.
func agreePause(err error) time.Duration {
	var refused *raftstore.OutcomeError
	if errors.As(err, &refused) {
		return 5 * time.Second
	}
	return 200 * time.Millisecond
}

var errUnknownTree = errors.New("the recovered cluster does not know this tree")

func (n *Node) putTree(ctx context.Context, f treeFile) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := n.log.Do(ctx, command(&pb.Command{Do: &pb.Command_PutTree{PutTree: &pb.PutTree{Name: f.Name, Id: f.ID, Generation: f.Generation}}}))
	if err != nil {
		return err
	}
	if err := raftstore.OutcomeErr(out); err != nil {
		return fmt.Errorf("tree %s: %w", f.Name, err)
	}
	n.slog.Info("the cluster has a new tree", "tree", f.Name, "id", f.ID)
	return nil
}

// remember writes what was agreed upon into node.json.
func (n *Node) remember(f treeFile) error {
	n.fileMu.Lock()
	defer n.fileMu.Unlock()
	if old, ok := n.file.tree(f.Name); ok {
		*old = f
	} else {
		n.file.Trees = append(n.file.Trees, f)
	}
	return n.dir.writeNode(n.file)
}

// treeFileOf reads what is known of a tree.
func (n *Node) treeFileOf(name string) (treeFile, bool) {
	n.fileMu.Lock()
	defer n.fileMu.Unlock()
	f, ok := n.file.tree(name)
	if !ok {
		return treeFile{}, false
	}
	return *f, true
}
