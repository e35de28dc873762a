package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// These are an operator's calls about the membership, as members carry them to
// the leader. Each may be repeated: what is done already is done again without
// harm, so that a caller whose leader died in the middle asks the next one.

// RemoveMember removes a member for good. Raft's membership follows the log's
// (leader.go); a leader that is to go hands its leadership over first.
func (s *clusterService) RemoveMember(ctx context.Context, req *pb.RemoveMemberRequest) (*pb.RemoveMemberResponse, error) {
	if err := s.leads(ctx); err != nil {
		return nil, err
	}
	id := cluster.NodeID(req.GetId())
	if all := s.log.Members(); len(all) == 1 && all[0].ID == id {
		return nil, status.Error(codes.FailedPrecondition, "it is the only member: stop its daemon and remove its data directory instead")
	}
	if err := s.soon(ctx, func(all []raftstore.Standing) error { return mayLeave(all, id, req.GetForce()) }); err != nil {
		return nil, err
	}
	if id == s.self {
		if err := s.handOver(ctx, ""); err != nil {
			return nil, err
		}
		return nil, &cluster.NotLeaderError{} // the next leader does it
	}
	err := s.commit(ctx, &pb.Command{Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: req.GetId()}}})
	return &pb.RemoveMemberResponse{}, err
}

// ChangeRole records an operator's choice and puts it in force.
func (s *clusterService) ChangeRole(ctx context.Context, req *pb.ChangeRoleRequest) (*pb.ChangeRoleResponse, error) {
	if err := s.leads(ctx); err != nil {
		return nil, err
	}
	id, role := cluster.NodeID(req.GetId()), cluster.Role(req.GetRole())
	if done, err := s.changeFollower(ctx, id, role, req.GetForce()); done || err != nil {
		return &pb.ChangeRoleResponse{}, err
	}
	err := s.soon(ctx, func(all []raftstore.Standing) error {
		switch role {
		case cluster.Voter:
			return mayVote(all, id, req.GetForce())
		case cluster.NonVoter:
			return mayLeave(all, id, req.GetForce())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.commit(ctx, &pb.Command{Do: &pb.Command_SetRole{SetRole: &pb.SetRole{Id: req.GetId(), Role: req.GetRole()}}}); err != nil {
		return nil, err
	}
	switch role {
	case cluster.Voter:
		err = s.log.Promote(ctx, id)
	case cluster.NonVoter:
		err = s.log.Demote(ctx, id)
	}
	return &pb.ChangeRoleResponse{}, retriable(err)
}

// Transfer hands leadership over.
func (s *clusterService) Transfer(ctx context.Context, req *pb.TransferRequest) (*pb.TransferResponse, error) {
	if err := s.leads(ctx); err != nil {
		return nil, err
	}
	to := cluster.NodeID(req.GetId())
	if err := s.soon(ctx, func(all []raftstore.Standing) error { return mayLead(all, to, s.self) }); err != nil {
		return nil, err
	}
	return &pb.TransferResponse{}, s.handOver(ctx, to)
}

// leads returns nil on a leader that has applied everything from before its
// time: it would not know the latest members else, nor what was chosen for them.
func (s *clusterService) leads(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, steerWithin)
	defer cancel()
	if err := s.isLeader(); err != nil {
		return err
	}
	if err := s.log.Barrier(ctx); err != nil {
		return retriable(err)
	}
	return s.isLeader()
}

func (s *clusterService) isLeader() error {
	if leader, ok := s.log.Leader(); !ok || leader != s.self {
		return &cluster.NotLeaderError{Leader: leader}
	}
	return nil
}

func (s *clusterService) handOver(ctx context.Context, to cluster.NodeID) error {
	if err := s.log.TransferTo(ctx, to); err != nil {
		return retriable(fmt.Errorf("this node leads and could not hand over: %w", err))
	}
	return nil
}

func (s *clusterService) commit(ctx context.Context, cmd *pb.Command) error {
	out, err := s.log.Do(ctx, command(cmd))
	if err != nil {
		return err
	}
	return raftstore.OutcomeErr(out)
}

// retriable marks a failure of Raft itself, whose outcome nobody knows: whoever
// asked asks again.
func retriable(err error) error {
	var notLeader *cluster.NotLeaderError
	if err == nil || errors.As(err, &notLeader) || errors.Is(err, cluster.ErrNoQuorum) {
		return err
	}
	return status.Error(codes.Unavailable, err.Error())
}

// notYet is a refusal that a moment may lift.
type notYet struct{ error }

func (e notYet) Unwrap() error { return e.error }

// soon asks until the answer is final, for a moment: a new leader hears from
// each member within a second, and under load the newest content is always on
// its way.
func (s *clusterService) soon(ctx context.Context, may func([]raftstore.Standing) error) error {
	const moment, pause = 2 * time.Second, 100 * time.Millisecond
	for until := s.now().Add(moment); ; {
		err := may(s.standings(ctx))
		if passing := (notYet{}); !errors.As(err, &passing) || s.now().After(until) {
			return err
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

func refused(format string, args ...any) error {
	return status.Errorf(codes.FailedPrecondition, format, args...)
}

// standingOf finds a member and the voters that are not it.
func standingOf(all []raftstore.Standing, id cluster.NodeID) (m raftstore.Standing, others []raftstore.Standing, err error) {
	found := false
	for _, s := range all {
		switch {
		case s.ID == id:
			m, found = s, true
		case s.Role == cluster.Voter:
			others = append(others, s)
		}
	}
	if !found {
		err = status.Errorf(codes.NotFound, "%s is not a member", id)
	}
	return m, others, err
}

// mayLeave refuses to take the vote of a member, or the member itself, where
// the voters that stay would be no quorum, or would not hold all content. Force
// overrides that; nothing overrides that somebody has to vote.
func mayLeave(all []raftstore.Standing, id cluster.NodeID, force bool) error {
	m, others, err := standingOf(all, id)
	if err != nil || m.Role != cluster.Voter {
		return err
	}
	if len(others) == 0 {
		return refused("it is the only voter: `gatesync promote` another node first")
	}
	if force {
		return nil
	}
	need, alive, whole := raftstore.Majority(len(others)), 0, 0
	var dead, behind []string
	for _, o := range others {
		switch {
		case !o.Alive:
			dead = append(dead, o.Name)
		case !o.Ready:
			alive++
			behind = append(behind, o.Name)
		default:
			alive++
			whole++
		}
	}
	switch {
	case alive < need:
		return notYet{refused("without it only %d of %d voters are alive, and nothing could be committed any more: start %s first, or add a node (--force does it nevertheless)",
			alive, len(others), strings.Join(dead, ", "))}
	case m.Alive && whole < need:
		return notYet{refused("without it only %d of %d voters hold all content: wait until %s has fetched it, see `gatesync members` (--force does not wait)",
			whole, len(others), strings.Join(behind, ", "))}
	}
	return nil
}

// mayVote refuses to promote who cannot vote yet: a vote counts at once. Force
// is for content that nobody has any more, and nobody will bring.
func mayVote(all []raftstore.Standing, id cluster.NodeID, force bool) error {
	m, others, err := standingOf(all, id)
	switch {
	case err != nil || m.Role == cluster.Voter:
		return err
	case !m.Alive:
		return notYet{refused("%s does not answer: start its daemon first", m.Name)}
	case !m.Ready && !force:
		return notYet{refused("%s has not caught up: it does not hold all of the log and the content yet; see `gatesync members`, and try again when it does (--force does not wait)", m.Name)}
	case len(others) >= raftstore.MaxVoters:
		return refused("there are %d voters, as many as Raft should have: `gatesync demote` another first", len(others))
	}
	return nil
}

// mayLead refuses to hand leadership to who cannot take it; "" is anybody.
func mayLead(all []raftstore.Standing, id, self cluster.NodeID) error {
	if id == "" {
		for _, m := range all {
			if m.ID != self && m.Role == cluster.Voter && m.Alive {
				return nil
			}
		}
		return notYet{refused("no other voter is alive: nobody could lead instead")}
	}
	m, _, err := standingOf(all, id)
	switch {
	case err != nil:
		return err
	case m.Role != cluster.Voter:
		return refused("%s does not vote, and who does not vote cannot lead: `gatesync promote %[1]s` first", m.Name)
	case !m.Alive:
		return notYet{refused("%s does not answer: start its daemon first", m.Name)}
	}
	return nil
}
