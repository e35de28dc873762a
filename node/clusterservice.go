package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// clusterLog is what the cluster service needs of the log.
type clusterLog interface {
	membership
	proposer
	authority
	forest
	watcher
	Format() uint32
	ApplyLocal(ctx context.Context, cmd *pb.Command) (*pb.Outcome, uint64, error)
	View(tree string) (manifest.View, bool)
	Barrier(ctx context.Context) error
	Promote(ctx context.Context, id cluster.NodeID) error
	Demote(ctx context.Context, id cluster.NodeID) error
	TransferTo(ctx context.Context, id cluster.NodeID) error
}

// clusterService is what members ask of each other. The transport has checked
// who calls; it is safe for concurrent use.
type clusterService struct {
	pb.UnimplementedClusterServer
	self      cluster.NodeID
	log       clusterLog
	peers     *peers
	forward   *forwarder
	applied   func(ctx context.Context, rev manifest.Revision) (manifest.Revision, error) // waits
	standings func(context.Context) []raftstore.Standing                                  // of all members at this moment, on the leader
	life      time.Duration                                                               // of certificates
	now       func() time.Time
	sights    *sights
}

// Hello takes what a member says and answers with what is known here.
func (s *clusterService) Hello(ctx context.Context, req *pb.HelloRequest) (*pb.HelloResponse, error) {
	caller, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.peers.hear(caller, req.GetState(), req.GetMembers()); err != nil {
		return nil, err
	}
	s.peers.hearBelow(caller, req.GetBelow())
	if req.GetAll() && s.peers.place.follows() {
		s.peers.refresh(ctx) // and so on, up to a member of Raft
	}
	known := s.peers.known()
	if s.peers.place.follower(caller) {
		known = append(known, cluster.Member{ID: caller, Role: cluster.Follower}) // it may not know
	}
	return &pb.HelloResponse{
		Members: toMessages(known), State: s.peers.state(ctx), Below: s.peers.answerBelow(caller, req.GetAll()),
	}, nil
}

func (s *clusterService) caller(ctx context.Context) (cluster.NodeID, error) {
	id, ok := transport.Peer(ctx)
	if !ok {
		return "", status.Error(codes.Unauthenticated, "no certificate")
	}
	return id, nil
}

// Propose commits a member's command, if this node leads.
func (s *clusterService) Propose(ctx context.Context, req *pb.ProposeRequest) (*pb.ProposeResponse, error) {
	caller, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if len(req.GetVia()) > 0 {
		return s.passOn(ctx, caller, req)
	}
	if err := allowed(caller, req.GetCommand()); err != nil {
		return nil, err
	}
	return s.apply(ctx, req.GetCommand())
}

// apply commits a command that its author may propose, if this node leads.
func (s *clusterService) apply(ctx context.Context, cmd *pb.Command) (*pb.ProposeResponse, error) {
	out, index, err := s.log.ApplyLocal(ctx, cmd)
	var large *raftstore.TooLargeError
	if errors.As(err, &large) {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err != nil {
		return nil, err
	}
	return &pb.ProposeResponse{Outcome: out, Index: index}, nil
}

// allowed tells whether a member may propose a command: nobody speaks in
// another's name.
func allowed(caller cluster.NodeID, cmd *pb.Command) error {
	var author string
	switch {
	case cmd.GetFormat() == 0 || cmd.GetFormat() > raftstore.Newest || cmd.GetDo() == nil:
		// It would be refused by every machine; the log is spared it.
		return status.Errorf(codes.InvalidArgument, "%s proposes a command of format %d that this version does not know", caller, cmd.GetFormat())
	case cmd.GetPropose() != nil:
		author = cmd.GetPropose().GetId().GetNode()
	case cmd.GetPutMember() != nil:
		author = cmd.GetPutMember().GetMember().GetId()
	case cmd.GetPutSighting() != nil:
		author = cmd.GetPutSighting().GetNode()
	case cmd.GetInitCluster() != nil:
		return status.Error(codes.InvalidArgument, "a cluster is begun once")
	case cmd.GetBeginIncarnation() != nil:
		return status.Error(codes.InvalidArgument, "a life of the cluster is begun by recover or restore-cluster, not through the log")
	case cmd.GetSetFormat() != nil, cmd.GetUseAuthority() != nil, cmd.GetPutSteward() != nil, cmd.GetAssignTarget() != nil:
		return status.Error(codes.PermissionDenied, "that is the leader's to decide")
	default:
		return nil
	}
	if author != string(caller) {
		return status.Errorf(codes.PermissionDenied, "%s proposes in the name of %q", caller, author)
	}
	return nil
}

// Applied answers once this node's trees have applied a revision.
func (s *clusterService) Applied(ctx context.Context, req *pb.AppliedRequest) (*pb.AppliedResponse, error) {
	rev, err := s.applied(ctx, manifest.Revision(req.GetRevision()))
	return &pb.AppliedResponse{Applied: uint64(rev)}, err
}

// Renew signs a new certificate for the caller, with the name that the log
// knows it by.
func (s *clusterService) Renew(ctx context.Context, req *pb.RenewRequest) (*pb.RenewResponse, error) {
	caller, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	return s.sign(caller, req.GetCsrDer())
}

func (s *clusterService) sign(id cluster.NodeID, csrDER []byte) (*pb.RenewResponse, error) {
	ca, trusted, err := signing(s.log, s.life)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	for _, m := range s.log.Members() {
		if m.ID != id {
			continue
		}
		cert, err := ca.Sign(csrDER, id, m.Name, s.now())
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "sign: %v", err)
		}
		return &pb.RenewResponse{CertPem: cert, CaPem: trusted}, nil
	}
	return nil, cluster.ErrNotMember
}

// manifestBatch is how many entries travel in one message.
const manifestBatch = 500

// Manifest streams a tree as committed.
func (s *clusterService) Manifest(req *pb.ManifestRequest, stream grpc.ServerStreamingServer[pb.ManifestResponse]) error {
	view, err := s.viewAt(stream.Context(), req.GetTree(), manifest.Revision(req.GetMinRevision()))
	if err != nil {
		return err
	}
	msg := &pb.ManifestResponse{Revision: uint64(view.Revision)}
	for _, t := range s.log.Trees() {
		if t.Name == req.GetTree() {
			msg.Tree = &pb.PutTree{Name: t.Name, Id: t.ID, Generation: t.Generation}
		}
	}
	view.Manifest.All(func(p manifest.Path, n manifest.Node) bool {
		msg.Nodes = append(msg.Nodes, &pb.ManifestNode{Path: []byte(p), Node: proto.FromNode(n)})
		if len(msg.Nodes) == manifestBatch {
			err = stream.Send(msg)
			msg = &pb.ManifestResponse{}
		}
		return err == nil
	})
	if err != nil || len(msg.Nodes) == 0 && msg.Tree == nil {
		return err
	}
	return stream.Send(msg)
}

// viewAt waits until a tree has been committed up to a revision here.
func (s *clusterService) viewAt(ctx context.Context, tree string, rev manifest.Revision) (manifest.View, error) {
	ch, stop := s.log.Watch()
	defer stop()
	for {
		if v, ok := s.log.View(tree); ok && v.Revision >= rev {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return manifest.View{}, fmt.Errorf("tree %q at revision %d is not known here: %w", tree, rev, ctx.Err())
		case <-ch:
		}
	}
}
