package transport

import (
	"container/list"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"sync/atomic"

	"github.com/gatesync/gatesync/cluster"
)

// peerConn is a connection whose other end is known.
type peerConn struct {
	*tls.Conn
	peer cluster.NodeID // "" for a joiner
	// What the other end has shown, to be judged again when the CAs change.
	presented []*x509.Certificate
	usage     x509.ExtKeyUsage
	chain     []*x509.Certificate // as it was verified: leaf … root
	busy      atomic.Int32        // calls of a joiner that are being answered

	mu      sync.Mutex
	closed  bool
	release []func() // called once, when the connection is closed
}

// whenClosed has fn called when c is closed; at once if it is already.
func (c *peerConn) whenClosed(fn func()) {
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.release = append(c.release, fn)
	}
	c.mu.Unlock()
	if closed {
		fn()
	}
}

// Close closes the socket without TLS's farewell, which may block on a peer
// that does not read; both protocols frame their messages themselves.
func (c *peerConn) Close() error {
	err := c.Conn.NetConn().Close()
	c.mu.Lock()
	release := c.release
	c.closed, c.release = true, nil
	c.mu.Unlock()
	for _, fn := range release {
		fn()
	}
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
	spare  func(net.Conn) bool // is not pushed out; nil: all may be
	order  list.List           // of net.Conn, oldest first
	closed bool
}

// addEvicting adds c, closing another one where there are too many: the oldest
// of the host that has the most. Among handshakes the old ones are those of
// callers that do not mean it, for an honest one takes milliseconds; and a host
// that floods us pushes out its own. It returns false once the set is closed,
// and where every other one is to be spared.
func (s *conns) addEvicting(c net.Conn) (remove func(), ok bool) {
	s.mu.Lock()
	var out net.Conn
	if s.max > 0 && s.order.Len() >= s.max && !s.closed {
		if e := s.worst(); e != nil {
			out = s.order.Remove(e).(net.Conn)
		}
	}
	if ok = !s.closed && (s.max == 0 || s.order.Len() < s.max); ok {
		remove = s.push(c)
	}
	s.mu.Unlock()
	if out != nil { // what is called at its end may want the lock
		_ = out.Close()
	}
	return remove, ok
}

// worst is the oldest connection of the host that has the most, of those that
// need not be spared; nil where there is none.
func (s *conns) worst() (oldest *list.Element) {
	count, most := map[string]int{}, 0
	for e := s.order.Front(); e != nil; e = e.Next() {
		if c := e.Value.(net.Conn); s.spare == nil || !s.spare(c) {
			host := hostOf(c)
			count[host]++
			most = max(most, count[host])
		}
	}
	for e := s.order.Front(); e != nil; e = e.Next() {
		if c := e.Value.(net.Conn); most > 0 && count[hostOf(c)] == most && (s.spare == nil || !s.spare(c)) {
			return e
		}
	}
	return nil
}

func hostOf(c net.Conn) string {
	addr := c.RemoteAddr()
	if addr == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return host
}

// add adds c; false once the set is closed.
func (s *conns) add(c net.Conn) (remove func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
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
