package transport

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
)

// Met is what one handshake tells of a member.
type Met struct {
	Node     cluster.NodeID
	Took     time.Duration // from the dial until both sides had accepted each other
	Ahead    time.Duration // its clock minus ours, known up to half of Took
	CertEnds time.Time
}

// Meet is DialAs, and tells what the handshake showed.
func Meet(ctx context.Context, addr string, id *Identity, clusterID string, self Instance) (Met, *grpc.ClientConn, error) {
	d := dialer{clusterID: clusterID, identity: id, timeout: defaultHandshake, self: self}
	var met Met
	first := true
	dial := func(ctx context.Context) (*peerConn, error) {
		begun := time.Now()
		c, g, err := d.dial(ctx, addr, protoGRPC, "")
		if err == nil && first {
			first = false
			met.Node, met.Took = c.peer, time.Since(begun)
			met.Ahead = g.clock().Sub(begun.Add(met.Took / 2))
			met.CertEnds = c.presented[0].NotAfter
		}
		return c, err
	}
	c, err := dial(ctx)
	if err != nil {
		return met, nil, err
	}
	cc, err := clientOver(ctx, c, dial)
	return met, cc, err
}
