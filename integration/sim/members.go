package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

const (
	retryChange = time.Second // before a change of membership is tried again
	reapAfter   = time.Second // a silent voter gives its vote up
)

// reconfigure commits who votes, if there is somebody who could lead both
// before and after.
func (w *world) reconfigure(voters []string) bool {
	for _, n := range w.nodes {
		if w.leads(n, w.voters) && w.leads(n, voters) || w.leads(n, w.voters) && !slices.Contains(voters, n.id) && w.quorate(voters) {
			w.trace("voters are now %v", voters)
			w.voters = voters
			w.append(record{voters: voters})
			return true
		}
	}
	return false
}

func (w *world) quorate(voters []string) bool {
	return slices.ContainsFunc(voters, func(id string) bool { return w.leads(w.node(id), voters) })
}

// join brings a node with files of its own.
func (w *world) join() {
	n := w.newNode()
	n.adopt = w.chance(0.3)
	for range w.rng.IntN(6) {
		n.gatewayActs()
	}
	n.rules.joins(n.disk)
	w.admit(n)
}

func (w *world) admit(n *node) {
	if !w.quorate(w.voters) {
		w.after(retryChange, func() { w.admit(n) })
		return
	}
	w.trace("node %d joins, adopt %v", n.index, n.adopt)
	w.append(record{cmd: n.announcement()})
	w.servers = append(slices.Clone(w.servers), n.id)
	w.append(record{voters: w.voters})
	n.start()
}

// steer decides who votes as a leader does, and has content that too few hold
// replicated again.
func (w *world) steer() {
	w.after(2*time.Second, w.steer)
	if !w.quorate(w.voters) {
		return
	}
	var members []raftstore.Standing
	for _, id := range w.servers {
		n := w.node(id)
		m := raftstore.Standing{Member: cluster.Member{ID: cluster.NodeID(id), Role: cluster.NonVoter}, Alive: n.alive}
		if slices.Contains(w.voters, id) {
			m.Role = cluster.Voter
		}
		m.Ready = n.alive && !w.oracle.removed[n.id] && n.loop.Status().Applied+3 >= w.oracle.machine.Revision()
		if !n.alive {
			m.Dead = reapAfter // those who come back do so within seconds: reap at once
		}
		members = append(members, m)
	}
	if step, ok := raftstore.NextStep(members, raftstore.Policy{Wanted: w.opt.Nodes, Reap: reapAfter}); ok {
		voters := slices.DeleteFunc(slices.Clone(w.voters), func(id string) bool { return id == string(step.ID) })
		if step.Role == cluster.Voter {
			voters = append(voters, string(step.ID))
		}
		w.reconfigure(voters)
	}
	w.replicate()
}

// replicate gives each voter what it lacks of what the log retains.
func (w *world) replicate() {
	for _, d := range w.oracle.retained() {
		for _, id := range w.voters {
			if n := w.node(id); n.alive && !n.store.durable[d] && n.bring(d) {
				n.store.flush()
			}
		}
	}
}

// demoteSome takes a vote away; steer gives it back.
func (w *world) demoteSome() {
	v := w.voters[w.rng.IntN(len(w.voters))]
	if len(w.voters) > 2 {
		w.reconfigure(without(w.voters, v))
	}
}

func without(ids []string, id string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(o string) bool { return o == id })
}

// spare tells whether a majority of the other voters holds everything: only
// then may a node go, as an operator would make sure of.
func (w *world) spare(n *node) bool {
	others := without(w.voters, n.id)
	for _, d := range w.oracle.retained() {
		if w.holders(d, others) <= len(others)/2 {
			return false
		}
	}
	return len(others) > 0
}

// removeSome removes a node for good.
func (w *world) removeSome() {
	n := w.someNode()
	switch {
	case w.peace, len(w.servers) < 3:
		return
	case !w.spare(n), w.oracle.removed[n.id], !slices.Contains(w.servers, n.id), !w.quorate(w.voters):
		w.after(retryChange, w.removeSome)
		return
	}
	w.trace("node %d is removed", n.index)
	w.append(record{cmd: command(&pb.Command{Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: n.id}}})})
	w.after(w.some(time.Second), func() { w.dismiss(n) })
}

// dismiss takes a removed node out of Raft, and ends it a while later.
func (w *world) dismiss(n *node) {
	if slices.Contains(w.voters, n.id) && !w.reconfigure(without(w.voters, n.id)) {
		w.after(retryChange, func() { w.dismiss(n) })
		return
	}
	w.servers = without(w.servers, n.id)
	w.after(w.some(3*time.Second), func() {
		n.crash(false)
		n.gone = true
		w.ledger.excuseNode(n, "removed with its node")
	})
}

// wipeSome empties a blob store: it comes back as another one.
func (w *world) wipeSome() {
	n := w.someNode()
	switch {
	case w.peace:
		return
	case !w.spare(n):
		w.after(retryChange, w.wipeSome)
		return
	}
	n.crash(false)
	w.trace("node %d loses its blob store", n.index)
	n.epoch++
	n.store = newStore(fmt.Sprintf("%s-%d", n.store.id, n.epoch))
	for _, a := range n.saved.asides {
		w.ledger.excuseText(a.lost.Digest, "lost with the blob store")
	}
	n.saved.asides = nil
	w.after(w.some(4*time.Second), n.start)
}
