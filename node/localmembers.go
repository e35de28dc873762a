package node

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// roleWithin bounds a change of the membership that a person waits for: a new
// leader may have to be found in between.
const roleWithin = 20 * time.Second

// RemoveNode removes a member by name or id.
func (s *localService) RemoveNode(ctx context.Context, req *pb.RemoveNodeRequest) (*pb.RemoveNodeResponse, error) {
	m, err := s.memberCalled(ctx, req.GetNode())
	if err != nil {
		return nil, err
	}
	asked := false
	err = s.askLeader(ctx, func(ctx context.Context, c pb.ClusterClient) error {
		_, err := c.RemoveMember(ctx, &pb.RemoveMemberRequest{Id: string(m.ID), Force: req.GetForce()})
		if asked && status.Code(err) == codes.NotFound {
			return nil // an earlier attempt got through
		}
		asked = true
		return err
	})
	if status.Code(err) == codes.NotFound { // this node has not heard of it yet
		err = s.noMember(req.GetNode())
	}
	return &pb.RemoveNodeResponse{Id: string(m.ID)}, err
}

// NodeRole makes a member a voter or a non-voter, or leaves that to the cluster.
func (s *localService) NodeRole(ctx context.Context, req *pb.NodeRoleRequest) (*pb.NodeRoleResponse, error) {
	m, err := s.memberCalled(ctx, req.GetNode())
	if err != nil {
		return nil, err
	}
	role := req.GetRole()
	if m.Role == cluster.Follower && cluster.Role(role) == cluster.Voter {
		role = "" // into Raft first; it votes when it is ready and a voter is wanted, or promoted again
	}
	err = s.askLeader(ctx, func(ctx context.Context, c pb.ClusterClient) error {
		_, err := c.ChangeRole(ctx, &pb.ChangeRoleRequest{Id: string(m.ID), Role: role, Force: req.GetForce()})
		return err
	})
	return &pb.NodeRoleResponse{Id: string(m.ID)}, err
}

// TransferLeader hands leadership to a voter, or away from whoever leads, and
// answers once the new leader is known here.
func (s *localService) TransferLeader(ctx context.Context, req *pb.TransferLeaderRequest) (*pb.TransferLeaderResponse, error) {
	var to cluster.NodeID
	if req.GetNode() != "" {
		m, err := s.memberCalled(ctx, req.GetNode())
		if err != nil {
			return nil, err
		}
		to = m.ID
	}
	ctx, cancel := context.WithTimeout(ctx, roleWithin)
	defer cancel()
	old, _ := s.log.Leader()
	err := s.askLeader(ctx, func(ctx context.Context, c pb.ClusterClient) error {
		if now, ok := s.log.Leader(); ok && (now == to || to == "" && old != "" && now != old) {
			return nil // an earlier attempt got through
		}
		_, err := c.Transfer(ctx, &pb.TransferRequest{Id: string(to)})
		return err
	})
	if err != nil {
		return nil, err
	}
	ch, stop := s.log.Watch()
	defer stop()
	for {
		now, ok := s.log.Leader()
		if ok && (now == to || to == "" && now != old) {
			for _, m := range s.log.Members() {
				if m.ID == now {
					return &pb.TransferLeaderResponse{Id: string(now), Name: m.Name}, nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil, s.explain(ctx.Err())
		case <-ch:
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// memberCalled finds a member by name or id. This node may not have heard yet
// of one that has just joined.
func (s *localService) memberCalled(ctx context.Context, node string) (cluster.Member, error) {
	for _, read := range []func(context.Context) error{nil, s.log.Barrier} {
		if read != nil {
			ctx, cancel := context.WithTimeout(ctx, doWithin)
			defer cancel()
			if err := read(ctx); err != nil {
				return cluster.Member{}, s.explain(err)
			}
		}
		for _, m := range s.log.Members() {
			if m.Name == node || string(m.ID) == node {
				return m, nil
			}
		}
	}
	return cluster.Member{}, s.noMember(node)
}

func (s *localService) noMember(called string) error {
	return status.Errorf(codes.NotFound, "no member is called %q (any more): see `gatesync members`", called)
}

// askLeader calls the leader, and the next one where it leads no more or dies,
// until one has answered.
func (s *localService) askLeader(ctx context.Context, call func(context.Context, pb.ClusterClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, roleWithin)
	defer cancel()
	for {
		err := s.askOnce(ctx, call)
		if err == nil || !passing(err) {
			return err
		}
		select {
		case <-ctx.Done():
			if !s.log.Quorum() {
				return s.noQuorum()
			}
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *localService) askOnce(ctx context.Context, call func(context.Context, pb.ClusterClient) error) error {
	// One leader has a part of the time: it may hang, and another one answer.
	ctx, cancel := context.WithTimeout(ctx, roleWithin/4)
	defer cancel()
	leader, ok := s.log.Leader()
	if !ok {
		return s.noQuorum()
	}
	conn, err := s.dial.Dial(ctx, leader)
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	return call(ctx, pb.NewClusterClient(conn))
}

// passing tells whether an error may be another one, or none, in a moment.
func passing(err error) bool {
	var notLeader *cluster.NotLeaderError
	if errors.As(err, &notLeader) || errors.Is(err, cluster.ErrNoQuorum) {
		return true
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return false
}
