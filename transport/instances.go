package transport

import (
	"net"
	"sync"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

// contestFor is how long a run that may be gone has to show that it is not,
// once another claims its identity. Members say hello every second.
const contestFor = 3 * time.Second

// Known is what is remembered of a member's latest run.
type Known struct {
	Instance
	// Addr is where it was, as its connections came.
	Addr string `json:"addr,omitempty"`
	// ReachedTerm and ReachedIndex are how far it has said that its log is: a
	// log on disk never goes back behind them.
	ReachedTerm  uint64 `json:"reached_term"`
	ReachedIndex uint64 `json:"reached_index"`
}

// Instances remembers of every member which run of it was last here, and lets
// no two of one member in. Of two that run at the same time the one that was
// here first stays. Its memory outlives a restart where the caller keeps it
// (Export, Import). Safe for concurrent use.
type Instances struct {
	self    cluster.NodeID
	own     Instance
	now     func() time.Time
	changed func() // a member's run was replaced; called without locks

	mu    sync.Mutex
	known map[cluster.NodeID]*runs
}

// runs is the latest run of one member, and who contests it.
type runs struct {
	Known
	open      map[net.Conn]struct{} // accepted from it
	contester string                // nonce of the run that claims its identity
	contested time.Time
}

// NewInstances begins with what was remembered. changed may be nil.
func NewInstances(self cluster.NodeID, own Instance, known map[cluster.NodeID]Known, changed func()) *Instances {
	if changed == nil {
		changed = func() {}
	}
	i := &Instances{self: self, own: own, now: time.Now, changed: changed, known: map[cluster.NodeID]*runs{}}
	for id, k := range known {
		i.known[id] = &runs{Known: k, open: map[net.Conn]struct{}{}}
	}
	return i
}

// Export returns what is remembered.
func (i *Instances) Export() map[cluster.NodeID]Known {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := make(map[cluster.NodeID]Known, len(i.known))
	for id, r := range i.known {
		out[id] = r.Known
	}
	return out
}

// Forget drops a member that was removed.
func (i *Instances) Forget(keep func(cluster.NodeID) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for id := range i.known {
		if !keep(id) {
			delete(i.known, id)
		}
	}
}

// Reached notes how far a member says that its log is.
func (i *Instances) Reached(id cluster.NodeID, term, index uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if r := i.known[id]; r != nil {
		r.ReachedTerm, r.ReachedIndex = max(r.ReachedTerm, term), max(r.ReachedIndex, index)
	}
}

// admit judges a caller; with verdictOK, release is to be called when its
// connection ends.
func (i *Instances) admit(id cluster.NodeID, is Instance, c net.Conn) (v verdict, other string, release func()) {
	i.mu.Lock()
	v, other, fresh, cut := i.judge(id, is, c.RemoteAddr().String())
	release = func() {}
	if r := i.known[id]; v == verdictOK && r != nil && is.Nonce != "" {
		r.open[c] = struct{}{}
		release = func() {
			i.mu.Lock()
			defer i.mu.Unlock()
			delete(r.open, c)
		}
	}
	i.mu.Unlock()
	for _, c := range cut {
		_ = c.Close()
	}
	if fresh {
		i.changed()
	}
	return v, other, release
}

// met judges a member that was dialed.
func (i *Instances) met(id cluster.NodeID, is Instance, addr string) (v verdict, other string) {
	i.mu.Lock()
	v, other, fresh, cut := i.judge(id, is, addr)
	i.mu.Unlock()
	for _, c := range cut {
		_ = c.Close()
	}
	if fresh {
		i.changed()
	}
	return v, other
}

// judge compares a run with the latest that is known. Where it is the next
// one, fresh is true and it is the latest from now on. cut are connections of
// a run that has to show that it still is there. The lock is held.
func (i *Instances) judge(id cluster.NodeID, is Instance, addr string) (v verdict, other string, fresh bool, cut []net.Conn) {
	if is.Nonce == "" {
		return verdictOK, "", false, nil
	}
	if id == i.self {
		if is.Nonce == i.own.Nonce {
			return verdictOK, "", false, nil
		}
		return verdictTwin, "", false, nil
	}
	r := i.known[id]
	switch {
	case r == nil, r.Nonce == "", is.incarnation() > r.incarnation():
		i.known[id] = &runs{Known: Known{Instance: is, Addr: addr}, open: map[net.Conn]struct{}{}}
		return verdictOK, "", true, nil
	case is.Nonce == r.Nonce:
		return verdictOK, "", false, nil
	case is.Start <= r.Start || is.incarnation() < r.incarnation():
		return verdictPast, r.Addr, false, nil
	case is.Last < r.ReachedIndex || is.Term < r.ReachedTerm:
		if len(r.open) > 0 {
			return verdictTwin, r.Addr, false, nil // and so it went back
		}
		return verdictWentBack, r.Addr, false, nil
	}
	v, cut = i.contest(r, is.Nonce)
	if v != verdictOK {
		return v, r.Addr, false, cut
	}
	r.Instance, r.Addr = is, addr
	r.contester, r.open = "", map[net.Conn]struct{}{}
	return verdictOK, "", true, nil
}

// contest finds out whether the latest run is still there, now that a later
// start claims its identity. A process that has ended has closed its
// connections, as a rule; where not, they are cut here, and one that lives
// comes back at once.
func (i *Instances) contest(r *runs, nonce string) (v verdict, cut []net.Conn) {
	if r.contester != nonce && i.now().Sub(r.contested) >= contestFor {
		r.contester = "" // an earlier contest, which is over
	}
	if len(r.open) == 0 && r.contester == "" {
		return verdictOK, nil
	}
	if r.contester != nonce {
		for c := range r.open {
			cut = append(cut, c)
		}
		r.contester, r.contested = nonce, i.now()
		return verdictWait, cut
	}
	switch {
	case i.now().Sub(r.contested) < contestFor:
		return verdictWait, nil
	case len(r.open) > 0:
		return verdictTwin, nil // it came back
	}
	return verdictOK, nil
}
