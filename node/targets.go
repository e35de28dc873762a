package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/fallback/target"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// newUpkeep makes what keeps the targets current that the log gives to this node.
func (n *Node) newUpkeep() *target.Upkeep {
	return target.NewUpkeep(target.UpkeepConfig{
		Self: n.file.Node, Cluster: n.file.Cluster, Version: n.opts.Version, Log: n.log, Read: n.caughtUp,
		Open: n.openOrFetch, Old: func(d manifest.Digest) (io.ReadCloser, error) { return n.blobs.Open(d) },
		SSH: strings.Fields(n.cfg.SSH), Limit: int64(n.cfg.Limit), Logger: n.slog,
	})
}

// openOrFetch opens content of the cluster; what has not come here yet is
// fetched from whoever has it.
func (n *Node) openOrFetch(ctx context.Context, ref manifest.BlobRef) (io.ReadCloser, error) {
	r, err := n.blobs.Open(ref.Digest)
	if err == nil || !errors.Is(err, blob.ErrNotFound) {
		return r, err
	}
	var failed error
	err = n.carrier.Fetch(ctx, []manifest.BlobRef{ref}, nil, func(_ manifest.Digest, err error) { failed = err })
	if err = errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("content that has not come to this node yet: %w", err)
	}
	return n.blobs.Open(ref.Digest)
}

// pushedTo is what this node says of the targets that it pushes to.
func (n *Node) pushedTo() (out []*pb.TargetState) {
	now := time.Now()
	for _, s := range n.upkeep.States() {
		t := &pb.TargetState{
			Name: s.Name, Epoch: s.Epoch, State: s.State, Revision: uint64(s.Revision), Held: uint64(s.Held), Error: s.Error,
			AgeMs: uint64(max(0, now.Sub(s.Since).Milliseconds())),
		}
		if !s.Failing.IsZero() {
			t.FailingMs = uint64(max(1, now.Sub(s.Failing).Milliseconds()))
		}
		out = append(out, t)
	}
	return out
}

const (
	// maxTargetStates bounds what a member says of its targets, maxTargetError an
	// error's text, in bytes.
	maxTargetStates = 1024
	maxTargetError  = 512
)

// cleanTargets makes what a member says of its targets fit to be printed.
func cleanTargets(s *pb.NodeState) {
	s.Targets = s.GetTargets()[:min(len(s.GetTargets()), maxTargetStates)]
	for _, t := range s.GetTargets() {
		t.Error, t.State = plainText(t.GetError(), maxTargetError), plainText(t.GetState(), maxVersion)
	}
}

// toldOf finds what a pusher says of a target; nil where that is of another
// epoch, or nothing. at is when it was true.
func toldOf(t cluster.Target, states []*pb.TargetState) *pb.TargetState {
	for _, s := range states {
		if s.GetName() == t.Name && s.GetEpoch() == t.Epoch {
			return s
		}
	}
	return nil
}

// targetStatus lists the targets with what their pushers last said.
func (n *Node) targetStatus() []TargetStatus {
	out := []TargetStatus{}
	for _, t := range n.log.Targets() {
		ts := TargetStatus{
			Name: t.Name, Address: t.Address, Trees: t.Trees, Delete: t.Delete, Limit: t.Limit, PusherID: string(t.Pusher), Epoch: t.Epoch,
			State: target.KeptWaiting,
		}
		if t.Pusher != "" {
			ts.Pusher, _ = n.log.Member(t.Pusher)
		}
		told, at, alive := n.toldOf(t)
		switch {
		case told != nil && (alive || t.Pusher == n.file.Node):
			since := at.Add(-time.Duration(min(told.GetAgeMs(), 1<<40)) * time.Millisecond)
			ts.State, ts.Revision, ts.Held, ts.Error, ts.Since = told.GetState(), told.GetRevision(), told.GetHeld(), told.GetError(), &since
		case t.Pusher != "" && !alive:
			ts.State = "unknown"
		}
		out = append(out, ts)
	}
	return out
}

// toldOf is what this node knows of a target: from its pusher, or as one.
func (n *Node) toldOf(t cluster.Target) (told *pb.TargetState, at time.Time, alive bool) {
	if t.Pusher == n.file.Node {
		return toldOf(t, n.pushedTo()), time.Now(), true
	}
	h, alive := n.peers.last(t.Pusher)
	return toldOf(t, h.state.GetTargets()), h.at, alive
}

// AddTarget adds a target, or changes the one of that name.
func (s *localService) AddTarget(ctx context.Context, req *pb.AddTargetRequest) (*pb.AddTargetResponse, error) {
	p := req.GetTarget()
	if p == nil {
		return nil, status.Error(codes.InvalidArgument, "no target")
	}
	var known []string
	for _, t := range s.log.Trees() {
		known = append(known, t.Name)
	}
	for _, name := range p.GetTrees() {
		if !slices.Contains(known, name) {
			return nil, status.Errorf(codes.NotFound, "the cluster has no tree %q: it has %s", name, strings.Join(known, ", "))
		}
	}
	return &pb.AddTargetResponse{}, s.do(ctx, &pb.Command{Do: &pb.Command_PutTarget{PutTarget: p}})
}

// RemoveTarget takes a target out of the configuration. What stands there stays.
func (s *localService) RemoveTarget(ctx context.Context, req *pb.RemoveTargetRequest) (*pb.RemoveTargetResponse, error) {
	return &pb.RemoveTargetResponse{}, s.do(ctx, &pb.Command{Do: &pb.Command_RemoveTarget{RemoveTarget: &pb.RemoveTarget{Name: req.GetName()}}})
}

// pushers is this node's part in naming who pushes.
func (n *Node) pushers() *pushers {
	return &pushers{
		self: n.file.Node, log: n.log, peers: n.peers, own: n.pushedTo, visit: n.opts.Visit, logger: n.slog, now: time.Now, seen: map[string]*pushedBy{},
	}
}

// targetLog is what pushers needs of the log.
type targetLog interface {
	proposer
	watcher
	Leader() (cluster.NodeID, bool)
	Members() []cluster.Member
	Revision() manifest.Revision
	TargetsKnown() bool
	Targets() []cluster.Target
}
