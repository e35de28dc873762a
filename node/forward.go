package node

import (
	"context"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// forwarder carries commands to the leader. Safe for concurrent use.
type forwarder struct{ dial dialer }

// Forward asks the leader to commit a command.
func (f *forwarder) Forward(ctx context.Context, leader cluster.NodeID, cmd *pb.Command) (*pb.Outcome, uint64, error) {
	conn, err := f.dial.Dial(ctx, leader)
	if err != nil {
		return nil, 0, cluster.NotCommitted(err) // it did not leave this node
	}
	res, err := pb.NewClusterClient(conn).Propose(ctx, &pb.ProposeRequest{Command: cmd})
	return res.GetOutcome(), res.GetIndex(), err
}
