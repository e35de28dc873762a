package transport

import (
	"context"
	"errors"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
)

// Dial returns the gRPC connection to a member: one per member, made when it is
// first used, kept, and shared by all callers, who must not close it. It does
// not wait for the peer; calls do. Each attempt to connect asks for the
// address anew, and when the address has changed the old connection is given up.
func (s *Server) Dial(ctx context.Context, id cluster.NodeID) (*grpc.ClientConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	addr, ok := s.cfg.Resolve(id)
	if !ok {
		return nil, &UnknownAddressError{Node: id}
	}
	return s.peers.get(id, addr)
}

// Forget closes the connection to a node that was removed, if there is one.
func (s *Server) Forget(id cluster.NodeID) { s.peers.forget(id) }

// connect makes one identified connection to a member.
func (s *Server) connect(ctx context.Context, id cluster.NodeID, proto string) (*peerConn, string, error) {
	select {
	case <-s.stop:
		return nil, "", ErrClosed
	default:
	}
	addr, ok := s.cfg.Resolve(id)
	if !ok {
		return nil, "", &UnknownAddressError{Node: id}
	}
	c, _, err := s.dialer().dial(ctx, addr, proto, id)
	switch {
	case err == nil:
		s.live.add(c)
		if err := s.stands(c); err != nil { // Prune was at work during the handshake
			_ = c.Close()
			return nil, addr, err
		}
		s.cfg.Found(id, addr)
	case elsewhere(err):
		s.cfg.Failed(id, addr)
	}
	return c, addr, err
}

func (s *Server) dialer() dialer {
	return dialer{
		clusterID: s.cfg.ClusterID, lookup: s.cfg.Lookup, identity: s.cfg.Identity, timeout: s.cfg.HandshakeTimeout,
		formats: s.cfg.Formats, self: s.cfg.Instance, proof: s.cfg.Proof(), instances: s.cfg.Instances, refused: s.cfg.Refused,
	}
}

// DialAddr connects to an address, whichever member of the cluster is there;
// the answer says which. The connection is open when it returns; the caller
// closes it.
func (s *Server) DialAddr(ctx context.Context, addr string) (*grpc.ClientConn, cluster.NodeID, error) {
	return s.dialer().open(ctx, addr)
}

// elsewhere tells that an attempt failed because the member may be at another
// address; not because we gave up, or because it does not want us.
func elsewhere(err error) bool {
	var (
		unreachable *UnreachableError
		mismatch    *PeerMismatchError
		foreign     *NotGatesyncError
		wrong       *WrongClusterError
	)
	return !errors.Is(err, context.Canceled) &&
		(errors.As(err, &unreachable) || errors.As(err, &mismatch) || errors.As(err, &foreign) || errors.As(err, &wrong))
}

// peers are the connections to members.
type peers struct {
	open func(cluster.NodeID) (*peerLink, error)

	mu     sync.Mutex
	links  map[cluster.NodeID]*peerLink
	closed bool
}

// peerLink is one gRPC connection and the socket under it.
type peerLink struct {
	cc *grpc.ClientConn

	mu   sync.Mutex
	conn net.Conn // the newest socket; nil before the first
	addr string   // where it leads
	err  error    // why the newest attempt failed; nil after a success
}

func (s *Server) openPeer(id cluster.NodeID) (*peerLink, error) {
	l := &peerLink{}
	cc, err := newClient(func(ctx context.Context) (*peerConn, error) {
		c, addr, err := s.connect(ctx, id, protoGRPC)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.err = err; err != nil {
			return nil, err
		}
		l.conn, l.addr = c, addr
		return c, nil
	}, l.translate)
	l.cc = cc
	return l, err
}

// translate gives a call that found no connection the reason as a value:
// gRPC keeps only its text.
func (l *peerLink) translate(err error) error {
	translated := FromStatus(err)
	if status.Code(err) != codes.Unavailable {
		return translated
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var remote *RemoteError
	if l.err != nil && errors.As(translated, &remote) && remote.is == nil {
		return &RemoteError{status: status.New(codes.Unavailable, l.err.Error()), is: l.err}
	}
	return translated
}

// moved gives up a socket that leads elsewhere.
func (l *peerLink) moved(addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil && l.addr != addr {
		_ = l.conn.Close()
		l.conn = nil
		l.cc.ResetConnectBackoff()
	}
}

func (p *peers) get(id cluster.NodeID, addr string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if l := p.links[id]; l != nil {
		l.moved(addr)
		return l.cc, nil
	}
	l, err := p.open(id)
	if err != nil {
		return nil, err
	}
	if p.links == nil {
		p.links = map[cluster.NodeID]*peerLink{}
	}
	p.links[id] = l
	return l.cc, nil
}

func (p *peers) forget(id cluster.NodeID) {
	p.mu.Lock()
	l := p.links[id]
	delete(p.links, id)
	p.mu.Unlock()
	if l != nil {
		_ = l.cc.Close()
	}
}

func (p *peers) known() (ids []cluster.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.links {
		ids = append(ids, id)
	}
	return ids
}

func (p *peers) close() {
	p.mu.Lock()
	links := p.links
	p.links, p.closed = nil, true
	p.mu.Unlock()
	for _, l := range links {
		_ = l.cc.Close()
	}
}
