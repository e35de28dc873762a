package raftstore

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
)

// dialWithin bounds a connection attempt, and so how long Close may have to
// wait for one.
const dialWithin = 2 * time.Second

// stream is a raft.StreamLayer that knows its connections: Raft leaves the
// ones it accepted open when it stops, with a goroutine reading from each. It
// can also be fenced: nothing goes in or out until the fence is lifted.
type stream struct {
	raft.StreamLayer
	self     nodeAddr
	handlers sync.WaitGroup // one for each accepted connection that Raft has not closed

	mu     sync.Mutex
	conns  map[*streamConn]struct{}
	why    reason // set: fenced
	closed bool
}

// reason is why a node keeps out of the cluster; several may hold at a time.
// Only a disk that hangs ever answers again, all others are for good.
type reason uint8

const (
	diskHangs reason = 1 << iota
	logDamaged
	termNotSaved // and the store closes
	silenced     // see Store.Silence
)

func newStream(inner raft.StreamLayer, self cluster.NodeID) *stream {
	return &stream{StreamLayer: inner, self: nodeAddr(self), conns: make(map[*streamConn]struct{})}
}

// nodeAddr is a node id as an address: Raft knows nodes by id alone.
type nodeAddr string

func (nodeAddr) Network() string  { return "gatesync" }
func (a nodeAddr) String() string { return string(a) }

// Addr implements net.Listener.
func (s *stream) Addr() net.Addr { return s.self }

// Accept implements net.Listener.
func (s *stream) Accept() (net.Conn, error) {
	for {
		c, err := s.StreamLayer.Accept()
		if err != nil {
			return nil, err
		}
		if tracked, err := s.track(c, true); err == nil {
			return tracked, nil
		}
	}
}

// Dial implements raft.StreamLayer.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	s.mu.Lock()
	shut := s.shut()
	s.mu.Unlock()
	if shut {
		return nil, errFenced
	}
	c, err := s.StreamLayer.Dial(address, min(timeout, dialWithin))
	if err != nil {
		return nil, err
	}
	return s.track(c, false)
}

var errFenced = errors.New("raft's connections are shut")

// track remembers a connection, or closes it where none may be open now.
func (s *stream) track(c net.Conn, accepted bool) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut() {
		_ = c.Close()
		return nil, errFenced
	}
	tracked := &streamConn{Conn: c, of: s, accepted: accepted}
	s.conns[tracked] = struct{}{}
	if accepted {
		s.handlers.Add(1)
	}
	return tracked, nil
}

// fence shuts the connections to the other nodes for a reason.
func (s *stream) fence(why reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why |= why
	s.cut()
}

// lift takes a reason away; what is shut for another one stays shut.
func (s *stream) lift(why reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why &^= why
}

// fenced tells why the connections are shut, 0: they are not.
func (s *stream) fenced() reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

// shut tells whether no connection may be open. The lock is held.
func (s *stream) shut() bool { return s.why != 0 || s.closed }

// cut breaks all connections under their users. The lock is held.
func (s *stream) cut() {
	for c := range s.conns {
		_ = c.Conn.Close()
	}
}

// Close stops listening and breaks all connections; wait waits for Raft to let
// go of them.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.cut()
	return s.StreamLayer.Close()
}

func (s *stream) wait() { s.handlers.Wait() }

// streamConn is a connection that the stream knows of until Raft closes it.
type streamConn struct {
	net.Conn
	of       *stream
	accepted bool
	once     sync.Once
}

// Close implements net.Conn.
func (c *streamConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.of.mu.Lock()
		delete(c.of.conns, c)
		c.of.mu.Unlock()
		if c.accepted {
			c.of.handlers.Done()
		}
	})
	return err
}
