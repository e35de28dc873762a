package transport

import (
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

// Prune cuts the open connections that would not come about any more: the
// other end is no member now, or no CA that is trusted now stands behind the
// certificate that it has shown. Certificates that have merely expired or were
// renewed cut nothing. Whoever changes the members or the CAs calls it; it
// returns whose connections it has cut.
func (s *Server) Prune() (cut []cluster.NodeID) {
	roots := s.cfg.Identity.now.Load().roots
	for _, c := range s.live.list() {
		_, err := chainTo(c.presented, roots, c.usage)
		if err == nil && s.cfg.Member(c.peer) {
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
