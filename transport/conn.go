package transport

import (
	"container/list"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"

	"github.com/gatesync/gatesync/cluster"
)

// peerConn is a connection whose other end is known.
type peerConn struct {
	*tls.Conn
	peer    cluster.NodeID // "" for a joiner
	release func()         // called once, when the connection is closed; may be nil
	gone    func()         // the same, of liveConns
	// What the other end has shown, to be judged again when the CAs change.
	presented []*x509.Certificate
	usage     x509.ExtKeyUsage
	once      sync.Once
}

// Close closes the socket without TLS's farewell, which may block on a peer
// that does not read; both protocols frame their messages themselves.
func (c *peerConn) Close() error {
	err := c.Conn.NetConn().Close()
	c.once.Do(func() {
		for _, tell := range []func(){c.release, c.gone} {
			if tell != nil {
				tell()
			}
		}
	})
	return err
}

// handoff is a net.Listener of connections that were accepted and identified
// elsewhere.
type handoff struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// deliver waits until somebody accepts c; otherwise it closes c.
func (h *handoff) deliver(ctx context.Context, c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close()
	case <-ctx.Done():
		_ = c.Close()
	}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handoff) Addr() net.Addr { return h.addr }

// conns is a set of open sockets, at most max of them; 0 is no bound.
type conns struct {
	mu     sync.Mutex
	max    int
	order  list.List // of net.Conn, oldest first
	closed bool
}

// addEvicting adds c, closing the oldest one where there are too many: among
// handshakes the old ones are those of callers that do not mean it, for an
// honest one takes milliseconds. It returns false once the set is closed.
func (s *conns) addEvicting(c net.Conn) (remove func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	if s.max > 0 && s.order.Len() >= s.max {
		oldest := s.order.Remove(s.order.Front()).(net.Conn)
		_ = oldest.Close()
	}
	return s.push(c), true
}

// add adds c unless there are too many.
func (s *conns) add(c net.Conn) (remove func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.max > 0 && s.order.Len() >= s.max {
		return nil, false
	}
	return s.push(c), true
}

func (s *conns) push(c net.Conn) (remove func()) {
	e := s.order.PushBack(c)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.order.Remove(e) // does nothing if it was evicted
	}
}

// closeAll closes every connection and takes no more.
func (s *conns) closeAll() {
	s.mu.Lock()
	s.closed = true
	var all []net.Conn
	for e := s.order.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(net.Conn))
	}
	s.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
}
