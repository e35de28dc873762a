package node

import (
	"context"
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
	ApplyLocal(ctx context.Context, cmd *pb.Command) (*pb.Outcome, uint64, error)
	View(tree string) (manifest.View, bool)
	Transfer(ctx context.Context) error
}

// clusterService is what members ask of each other. The transport has checked
// who calls; it is safe for concurrent use.
type clusterService struct {
	pb.UnimplementedClusterServer
	self    cluster.NodeID
	log     clusterLog
	peers   *peers
	applied func(ctx context.Context, rev manifest.Revision) (manifest.Revision, error) // waits
	life    time.Duration                                                               // of certificates
	now     func() time.Time
}

// Hello takes what a member says and answers with what is known here.
func (s *clusterService) Hello(ctx context.Context, req *pb.HelloRequest) (*pb.HelloResponse, error) {
	caller, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetState().GetId() != string(caller) {
		return nil, status.Errorf(codes.InvalidArgument, "%s says that it is %q", caller, req.GetState().GetId())
	}
	s.peers.hear(req.GetState(), req.GetMembers())
	return &pb.HelloResponse{Members: toMessages(s.peers.book.members()), State: s.peers.state(ctx)}, nil
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
	if err := allowed(caller, req.GetCommand()); err != nil {
		return nil, err
	}
	out, index, err := s.log.ApplyLocal(ctx, req.GetCommand())
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
	case cmd.GetPropose() != nil:
		author = cmd.GetPropose().GetId().GetNode()
	case cmd.GetPutMember() != nil:
		author = cmd.GetPutMember().GetMember().GetId()
	case cmd.GetInitCluster() != nil:
		return status.Error(codes.InvalidArgument, "a cluster is begun once")
	case cmd.GetSetFormat() != nil, cmd.GetUseAuthority() != nil:
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

// RemoveMember removes a member for good. Raft's membership follows the log's
// (leader.go); a leader that is to go hands its leadership over first.
func (s *clusterService) RemoveMember(ctx context.Context, req *pb.RemoveMemberRequest) (*pb.RemoveMemberResponse, error) {
	leader, ok := s.log.Leader()
	if !ok || leader != s.self {
		return nil, &cluster.NotLeaderError{Leader: leader}
	}
	id := cluster.NodeID(req.GetId())
	if err := mayRemove(s.log.Members(), id, s.peers.alive); err != nil {
		return nil, err
	}
	if id == s.self {
		if err := s.log.Transfer(ctx); err != nil {
			return nil, fmt.Errorf("this node leads and could not hand over: %w", err)
		}
		return nil, &cluster.NotLeaderError{} // the next leader does it
	}
	out, err := s.log.Do(ctx, command(&pb.Command{Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: req.GetId()}}}))
	if err != nil {
		return nil, err
	}
	return &pb.RemoveMemberResponse{}, raftstore.OutcomeErr(out)
}

// mayRemove refuses a removal that would leave the cluster without a quorum.
func mayRemove(members []cluster.Member, id cluster.NodeID, alive func(cluster.NodeID) bool) error {
	if !contains(members, id) {
		return status.Errorf(codes.NotFound, "%s is not a member", id)
	}
	if len(members) == 1 {
		return status.Error(codes.FailedPrecondition, "it is the only member: stop its daemon and remove its data directory instead")
	}
	voters, up := 0, 0
	for _, m := range members {
		if m.Role == cluster.Voter && m.ID != id {
			voters++
			if alive(m.ID) {
				up++
			}
		}
	}
	if up < voters/2+1 {
		return status.Errorf(codes.FailedPrecondition,
			"without it only %d of %d voters are alive, and nothing could be committed any more: start the others first, or add a node", up, voters)
	}
	return nil
}
