package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// treeMounts is what the cluster knows of one tree's directories: the log, as
// package syncer asks for it.
type treeMounts struct {
	tree string
	log  *raftstore.Store

	mu      sync.Mutex
	formers *formers // nil: nobody has asked yet
}

func (t *treeMounts) Shares() cluster.Shares { return t.log.Shares(t.tree) }

func (t *treeMounts) Member(id cluster.NodeID) (string, bool) { return t.log.Member(id) }

func (t *treeMounts) Removed(id cluster.NodeID) bool { return t.log.Removed(id) }

func (t *treeMounts) Heard() time.Time { return t.log.Heard() }

var errOldFormat = errors.New("not every member understands shared mounts yet: `gatesync status` names those that are to be upgraded")

// Say proposes what this node sees. A log whose format knows no sightings yet
// takes it once all members are of a version that does.
func (t *treeMounts) Say(ctx context.Context, g cluster.Sighting) error {
	if !t.log.SharesKnown() {
		return errOldFormat
	}
	out, err := t.log.Do(ctx, command(&pb.Command{Do: &pb.Command_PutSighting{PutSighting: raftstore.FromSighting(t.tree, g)}}))
	if err != nil {
		return err
	}
	return raftstore.OutcomeErr(out)
}

// Former tells whether a path has held some content, as far as history reached
// back when this was first asked, after a change of stewards. The history is
// read once: an rsync on the file server itself asks about every file it wrote.
func (t *treeMounts) Former(p manifest.Path, e manifest.Entry) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.formers == nil {
		t.formers = newFormers()
	}
	now := t.log.Revision()
	commits, _ := t.log.Since(t.tree, max(t.formers.upTo, t.log.Oldest()-1))
	t.formers.add(commits, now)
	return t.formers.has(p, e)
}

// Stands goes through all that the log stands for: few ask, and seldom.
func (t *treeMounts) Stands(ref manifest.BlobRef) (stands bool) {
	eachContent(t.log, func(r manifest.BlobRef, _ manifest.Revision) { stands = stands || r == ref })
	return stands
}
