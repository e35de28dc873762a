package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
	"github.com/gatesync/gatesync/vfs"
)

// YieldError: the cluster was recovered without this node. Its log was given
// up; opened again, the node rejoins by itself.
type YieldError struct {
	To   cluster.Incarnation
	Addr string // of who said so
}

func (e *YieldError) Error() string {
	return fmt.Sprintf("the cluster was recovered without this node (incarnation %s, says %s): started again, it rejoins by itself, and what it alone holds goes aside", e.To, e.Addr)
}

// Serve is Open and Run for a daemon: where the cluster was recovered without
// this node, it is opened anew and rejoins.
func Serve(ctx context.Context, cfg config.Config, o Options) error {
	for {
		n, err := Open(cfg, o)
		if err != nil {
			return err
		}
		err = n.Run(ctx)
		var yield *YieldError
		if !errors.As(err, &yield) || ctx.Err() != nil {
			return err
		}
	}
}

// refusedBy takes what a member says of this very node. It is said again with
// each attempt to connect.
func (n *Node) refusedBy(err error) {
	var other *transport.IncarnationError
	if errors.As(err, &other) && !other.Yield() {
		if other.Newer() {
			n.claim.Store(&claim{at: time.Now(), text: err.Error()})
			n.server.Refusals().Note(string(other.Node), "a newer life of the cluster", err)
		}
		return
	}
	select {
	case n.refusals <- err:
	default: // the first is enough
	}
}

// heed ends the node where a member whose word counts has said that it may not
// go on as it is. From then on it takes no part in Raft; that it has yielded
// is on disk before it stops.
func (n *Node) heed(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	led := time.Now() // when there last was a leader, or this node started
	var err error
	for err == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case err = <-n.refusals:
		}
		if _, ok := n.log.Leader(); ok {
			led = time.Now()
		}
		if err == nil {
			continue
		}
		if why := n.doubt(err, time.Since(led)); why != "" {
			err = fmt.Errorf("not heeded, %s: %w", why, err)
			n.server.Refusals().Note(string(speaker(err)), "its word on this node", err)
			if why != readsFirst {
				n.claim.Store(&claim{at: time.Now(), text: err.Error() + ". If it did happen there: " + cluster.JoinAgain})
			}
			err = nil
		}
	}
	n.log.Silence()
	var newer *transport.IncarnationError
	if !errors.As(err, &newer) {
		return err
	}
	n.fileMu.Lock()
	defer n.fileMu.Unlock()
	n.file.YieldTo = newer.Theirs
	if err := n.dir.writeNode(n.file); err != nil {
		return err
	}
	return &YieldError{To: newer.Theirs, Addr: newer.Addr}
}

// begin is every start's first step, under the lock: it completes what was
// interrupted, refuses a directory that lacks a part, and counts the start.
func (d dataDir) begin(log *slog.Logger) (f nodeFile, is transport.Instance, err error) {
	if f, err = d.readNode(); err != nil {
		return f, is, err
	}
	if f.YieldTo > f.incarnation() {
		if err := d.setAside(&f, log); err != nil {
			return f, is, fmt.Errorf("give up the log of incarnation %s: %w", f.incarnation(), err)
		}
	}
	begun, err := raftstore.Begun(d.raft())
	if err != nil {
		return f, is, err
	}
	if begun > f.incarnation() { // recover was interrupted after the step that counts
		if err := moveAside(d.newRaft(), d.oldRaft(begun)); err != nil {
			return f, is, err
		}
		f.takeOver(begun)
	}
	if f.HasLog && !raftstore.Exists(d.raft()) {
		return f, is, &PartError{DataDir: string(d), Part: "raft"}
	}
	var j joining
	if readJSON(d.joining(), &j) == nil && j.Node == f.Node { // the power failed before it was gone
		if err := d.endJoin(); err != nil {
			return f, is, err
		}
	}
	f.Starts++
	is = transport.Instance{Incarnation: f.incarnation(), Start: f.Starts, Nonce: transport.NewNonce()}
	if is.Term, is.Last, err = raftstore.Extent(d.raft()); err != nil {
		return f, is, err
	}
	return f, is, d.writeNode(f)
}

// incarnation is the cluster's life that this node knows.
func (f *nodeFile) incarnation() cluster.Incarnation {
	return max(f.Incarnation, cluster.FirstIncarnation)
}

// takeOver makes this node one that goes on into the next life: its roots and
// records stay its own.
func (f *nodeFile) takeOver(to cluster.Incarnation) {
	f.Incarnation, f.FollowerAt = to, 0
	for i := range f.Trees {
		if t := &f.Trees[i]; !t.New {
			if t.KeepFrom == 0 {
				t.KeepFrom = t.Generation
			}
			t.Generation = max(t.Generation, uint64(to))
		}
	}
}

// setAside makes this node a returner: its log is put aside, its blobs stay,
// and its trees are to be agreed upon anew.
func (d dataDir) setAside(f *nodeFile, log *slog.Logger) error {
	aside := d.oldRaft(f.YieldTo)
	if f.HasLog || raftstore.Exists(d.raft()) {
		if err := moveAside(d.raft(), aside); err != nil {
			return err
		}
	}
	log.Warn("the cluster was recovered without this node: its old log is put aside, it rejoins as a non-voter; what its trees hold and the cluster does not goes aside (`gatesync conflicts`)",
		"incarnation", f.YieldTo.String(), "old_log", aside)
	f.Incarnation, f.YieldTo = f.YieldTo, 0
	f.HasLog, f.Joiner, f.Adopt, f.FollowerAt = false, true, false, 0
	for i := range f.Trees {
		t := &f.Trees[i]
		t.New, t.Made, t.Returned, t.KeepFrom = true, false, true, 0
	}
	return d.writeNode(*f)
}

// moveAside renames a directory, under the first free name.
func moveAside(from, to string) error {
	name := to
	for i := 2; ; i++ {
		err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, name, unix.RENAME_NOREPLACE)
		switch {
		case err == nil:
			return vfs.SyncDir(filepath.Dir(name))
		case errors.Is(err, fs.ErrNotExist):
			return nil // done before an interruption
		case !errors.Is(err, fs.ErrExist):
			return &os.LinkError{Op: "rename", Old: from, New: name, Err: err}
		}
		name = fmt.Sprintf("%s-%d", to, i)
	}
}

// PartError: a part of a data directory is gone that the node cannot do
// without, and must not make anew.
type PartError struct {
	DataDir string
	Part    string
}

func (e *PartError) Error() string {
	why := map[string]string{
		"raft":      "this node's log is gone. It may have voted and acknowledged what it now does not know, so it may not come back as its old self",
		"node.json": "the file that says who this node is is gone, while its log or records are still there",
		"tls":       "this node's key or certificate is gone, and nobody would talk to it",
	}[e.Part]
	return fmt.Sprintf("%s lacks %s: %s. Put it back as it last was, if you can; else "+cluster.ReplaceSelf+". If this was the only member left: `gatesync restore-cluster` from a backup",
		e.DataDir, e.Part, why)
}
