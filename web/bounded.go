package web

import (
	"container/list"
	"net"
	"sync"
)

// maxConns bounds the open connections: probes and scrapers need a handful.
const maxConns = 256

// bounded is a listener with at most max open connections. One more pushes out
// the oldest: a probe is done within milliseconds, what lingers means nothing
// good.
type bounded struct {
	net.Listener
	max int

	mu   sync.Mutex
	open list.List // of net.Conn, oldest first
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Len() >= b.max {
		_ = b.open.Remove(b.open.Front()).(net.Conn).Close()
	}
	return &boundedConn{Conn: c, of: b, at: b.open.PushBack(c)}, nil
}

type boundedConn struct {
	net.Conn
	of *bounded
	at *list.Element
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.of.mu.Lock()
	c.of.open.Remove(c.at) // does nothing if it was pushed out
	c.of.mu.Unlock()
	return c.Conn.Close()
}
