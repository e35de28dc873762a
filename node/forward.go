package node

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// forwarder carries commands to the leader: directly, or, where a follower
// cannot reach that, through its parent. Safe for concurrent use.
type forwarder struct {
	dial dialer
	self cluster.NodeID
	// upstream tells who feeds this follower; nil before that is known.
	upstream atomic.Pointer[func() (cluster.NodeID, bool)]

	detour atomic.Pointer[time.Time] // until then the parent is asked first
}

const (
	// directWithin bounds a follower's attempt to reach the leader itself: a
	// firewall may swallow it.
	directWithin = 2 * time.Second
	// detourFor is how long a way that works is kept to.
	detourFor = time.Minute
)

// Forward asks the leader to commit a command.
func (f *forwarder) Forward(ctx context.Context, leader cluster.NodeID, cmd *pb.Command) (*pb.Outcome, uint64, error) {
	if parent, follows := f.parent(); !follows || parent == leader {
		return f.ask(ctx, leader, &pb.ProposeRequest{Command: cmd})
	}
	return f.pass(ctx, leader, &pb.ProposeRequest{Command: cmd})
}

// pass sends a command on its way, in the name of its author.
func (f *forwarder) pass(ctx context.Context, leader cluster.NodeID, req *pb.ProposeRequest) (*pb.Outcome, uint64, error) {
	onward := &pb.ProposeRequest{Command: req.GetCommand(), Via: append(slices.Clone(req.GetVia()), string(f.self))}
	direct := req // the author itself; whoever passes on says so
	if len(req.GetVia()) > 0 {
		direct = onward
	}
	parent, follows := f.parent()
	if !follows {
		return f.ask(ctx, leader, direct)
	}
	if until := f.detour.Load(); until != nil && time.Now().Before(*until) {
		return f.ask(ctx, parent, onward)
	}
	within, cancel := context.WithTimeout(ctx, directWithin)
	out, index, err := f.ask(within, leader, direct)
	cancel()
	if err == nil || leadsElsewhere(err) || ctx.Err() != nil {
		return out, index, err
	}
	out, index, perr := f.ask(ctx, parent, onward)
	if perr == nil {
		until := time.Now().Add(detourFor)
		f.detour.Store(&until)
		return out, index, nil
	}
	return nil, 0, cluster.OutcomeUnknown(perr) // the first attempt may have got through
}

// leadsElsewhere tells whether an answer is that of a node that does not lead.
func leadsElsewhere(err error) bool {
	var not *cluster.NotLeaderError
	return errors.As(err, &not)
}

// parent is who feeds this follower.
func (f *forwarder) parent() (cluster.NodeID, bool) {
	if up := f.upstream.Load(); up != nil {
		return (*up)()
	}
	return "", false
}

func (f *forwarder) ask(ctx context.Context, id cluster.NodeID, req *pb.ProposeRequest) (*pb.Outcome, uint64, error) {
	conn, err := f.dial.Dial(ctx, id)
	if err != nil {
		return nil, 0, cluster.NotCommitted(err) // it did not leave this node
	}
	res, err := pb.NewClusterClient(conn).Propose(ctx, req)
	return res.GetOutcome(), res.GetIndex(), err
}
