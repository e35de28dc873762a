package transport

import (
	"crypto/x509"
	"sync"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

// How many connections one peer may have open here, by what they are for. It
// needs one for its calls, one more while it moves, and a few for Raft. More
// push out its own oldest: what is left over of a peer that died hurts nobody,
// and a peer that means harm harms itself.
const (
	maxCalling = 4
	maxRafting = 16
)

// admitted are the open connections of peers that were let in.
type admitted struct {
	mu sync.Mutex
	of map[admittedKey][]*peerConn // oldest first
}

type admittedKey struct {
	peer  cluster.NodeID
	proto string
}

// add takes c in until it is closed.
func (a *admitted) add(c *peerConn, proto string) {
	key := admittedKey{c.peer, proto}
	most := maxCalling
	if proto == protoRaft {
		most = maxRafting
	}
	c.whenClosed(func() { a.remove(key, c) })
	a.mu.Lock()
	if a.of == nil {
		a.of = map[admittedKey][]*peerConn{}
	}
	all := a.of[key]
	var oldest *peerConn
	if len(all) >= most {
		oldest, all = all[0], all[1:]
	}
	a.of[key] = append(all, c)
	a.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close()
	}
}

func (a *admitted) remove(key admittedKey, c *peerConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kept := a.of[key][:0:0]
	for _, o := range a.of[key] {
		if o != c {
			kept = append(kept, o)
		}
	}
	if a.of[key] = kept; len(kept) == 0 {
		delete(a.of, key)
	}
}

// endWith closes c when the first certificate of its chain ends: a node that
// has renewed its own connects again, one that has not is told why it may not.
func (c *peerConn) endWith(chain []*x509.Certificate, now time.Time) {
	if len(chain) == 0 {
		return
	}
	end := chain[0].NotAfter
	for _, cert := range chain {
		end = earlier(end, cert.NotAfter)
	}
	t := time.AfterFunc(end.Sub(now), func() { _ = c.Close() })
	c.whenClosed(func() { t.Stop() })
}
