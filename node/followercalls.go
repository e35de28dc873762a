package node

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// changeFollower is ChangeRole where a follower is concerned: it makes one of a
// member of Raft, or a member of Raft of one. done is false where none is.
func (s *clusterService) changeFollower(ctx context.Context, id cluster.NodeID, role cluster.Role, force bool) (done bool, err error) {
	was := s.peers.place.follower(id)
	switch {
	case !was && role != cluster.Follower:
		return false, nil
	case was && role == cluster.Follower:
		return true, nil
	case role == cluster.Follower && id == s.self:
		if err := s.handOver(ctx, ""); err != nil {
			return true, err
		}
		return true, &cluster.NotLeaderError{} // the next leader does it
	case role == cluster.Follower:
		if err := s.mayFollow(ctx, id, force); err != nil {
			return true, err
		}
	case !force:
		if err := s.mayDial(ctx, id); err != nil {
			return true, err
		}
	}
	return true, s.commit(ctx, &pb.Command{Do: &pb.Command_SetRole{SetRole: &pb.SetRole{Id: string(id), Role: string(role)}}})
}

// mayFollow takes the vote of who is to be a follower first, if it has one.
func (s *clusterService) mayFollow(ctx context.Context, id cluster.NodeID, force bool) error {
	if s.log.Format() < raftstore.FollowersFormat {
		return refused("the cluster's log is of format %d, followers need format %d: upgrade every member first", s.log.Format(), raftstore.FollowersFormat)
	}
	var all []raftstore.Standing
	if err := s.soon(ctx, func(now []raftstore.Standing) error { all = now; return mayLeave(now, id, force) }); err != nil {
		return err
	}
	m, others, err := standingOf(all, id)
	switch {
	case err != nil:
		return err
	case len(others) == 0:
		return refused("it is the only voter")
	case m.Role == cluster.Voter:
		return retriable(s.log.Demote(ctx, id))
	}
	return nil
}

// mayDial refuses to take a follower into Raft that the leader cannot reach.
func (s *clusterService) mayDial(ctx context.Context, id cluster.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := s.peers.dial.Dial(ctx, id)
	if err == nil {
		_, err = pb.NewClusterClient(conn).Hello(ctx, s.peers.request(ctx))
	}
	if err != nil {
		return refused("the leader cannot reach %s, and members of Raft have to be reachable: open the way to it first (--force does not ask): %v", id, err)
	}
	return nil
}

// maxVia bounds how often a command is passed on.
const maxVia = 16

// passOn carries a follower's command towards the leader, for whoever cannot
// reach that itself.
func (s *clusterService) passOn(ctx context.Context, caller cluster.NodeID, req *pb.ProposeRequest) (*pb.ProposeResponse, error) {
	author := cluster.NodeID(req.GetVia()[0])
	if !s.peers.place.follower(author) || len(req.GetVia()) > maxVia {
		return nil, status.Errorf(codes.PermissionDenied, "%s passes on a command of %q, who is no follower", caller, clip(string(author)))
	}
	if err := allowed(author, req.GetCommand()); err != nil {
		return nil, err
	}
	if s.isLeader() == nil {
		return s.apply(ctx, req.GetCommand())
	}
	leader, ok := s.log.Leader()
	if !ok {
		return nil, &cluster.NotLeaderError{}
	}
	out, index, err := s.forward.pass(ctx, leader, req)
	if err != nil {
		return nil, fmt.Errorf("passed on: %w", err)
	}
	return &pb.ProposeResponse{Outcome: out, Index: index}, nil
}
