package transport

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
)

// streamLayer is Raft's network on our port. Addresses are node ids, its own
// included; where a node is, is looked up for each connection.
type streamLayer struct {
	*handoff
	server *Server
	open   *conns          // sockets accepted: Raft's transport does not close them when it stops
	ctx    context.Context // until Close: ends connection attempts, for Dial is not given a context
	cancel context.CancelFunc
}

func newStreamLayer(s *Server) *streamLayer {
	l := &streamLayer{handoff: newHandoff(idAddr(s.cfg.Self)), server: s, open: &conns{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Dial implements raft.StreamLayer.
func (l *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if l.ctx.Err() != nil {
		return nil, ErrClosed
	}
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	c, _, err := l.server.connect(ctx, cluster.NodeID(address), protoRaft)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// deliver hands an incoming connection to Raft.
func (l *streamLayer) deliver(ctx context.Context, c *peerConn) {
	remove, ok := l.open.add(c.NetConn())
	if !ok {
		_ = c.Close()
		return
	}
	c.whenClosed(remove)
	l.handoff.deliver(ctx, &raftConn{peerConn: c, member: l.server.cfg.Member})
}

// Close ends Accept and cuts the accepted connections.
func (l *streamLayer) Close() error {
	l.cancel()
	_ = l.handoff.Close()
	l.open.closeAll()
	return nil
}

// raftConn is an accepted connection that a removed member can no longer use.
type raftConn struct {
	*peerConn
	member func(cluster.NodeID) bool
}

var errRemoved = errors.New("the peer is no longer a member")

func (c *raftConn) Read(p []byte) (int, error) {
	n, err := c.peerConn.Read(p)
	if err == nil && !c.member(c.peer) {
		_ = c.Close()
		return 0, errRemoved
	}
	return n, err
}

// idAddr is a node's id where an address is asked for.
type idAddr cluster.NodeID

func (idAddr) Network() string  { return "gatesync" }
func (a idAddr) String() string { return string(a) }
