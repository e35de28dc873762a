package transport

import (
	"fmt"
	"sync"

	"github.com/gatesync/gatesync/cluster"
)

// liveConns is the open connections with members. Safe for concurrent use.
type liveConns struct {
	mu  sync.Mutex
	all map[*peerConn]struct{}
}

// add remembers a connection until it is closed. It is called before anybody
// uses the connection.
func (l *liveConns) add(c *peerConn) {
	l.mu.Lock()
	if l.all == nil {
		l.all = map[*peerConn]struct{}{}
	}
	l.all[c] = struct{}{}
	l.mu.Unlock()
	c.whenClosed(func() { l.remove(c) })
}

func (l *liveConns) remove(c *peerConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, c)
}

func (l *liveConns) list() []*peerConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*peerConn, 0, len(l.all))
	for c := range l.all {
		out = append(out, c)
	}
	return out
}

// stands judges an open connection by what holds now: nil where it may stay.
func (s *Server) stands(c *peerConn) error {
	addr := c.RemoteAddr().String()
	if _, err := chainTo(c.presented, s.cfg.Identity.now.Load().roots, c.usage); err != nil {
		return &WrongClusterError{Addr: addr, Ours: s.cfg.ClusterID, Theirs: s.cfg.ClusterID, Err: err}
	}
	if !s.cfg.Member(c.peer) {
		return fmt.Errorf("%s at %s: %w", c.peer, addr, cluster.ErrNotMember)
	}
	return nil
}

// Prune cuts the open connections that would not come about any more: the
// other end is no member now, or no CA that is trusted now stands behind the
// certificate that it has shown. Certificates that have merely expired or were
// renewed cut nothing. Whoever changes the members or the CAs calls it, after
// the change; it returns whose connections it has cut. A connection that is in
// its handshake meanwhile judges itself once more when it has joined the others.
func (s *Server) Prune() (cut []cluster.NodeID) {
	for _, c := range s.live.list() {
		if s.stands(c) == nil {
			continue
		}
		_ = c.Close()
		cut = append(cut, c.peer)
	}
	for _, id := range s.peers.known() {
		if !s.cfg.Member(id) {
			s.peers.forget(id)
		}
	}
	return cut
}
