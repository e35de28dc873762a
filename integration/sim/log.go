package sim

import (
	"bytes"
	"slices"
	"time"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// record is one committed entry of the log: a command or a configuration.
type record struct {
	cmd    *pb.Command
	voters []string
	out    *pb.Outcome // as the oracle has it
}

func (r record) apply(m *raftstore.Machine) *pb.Outcome {
	if r.cmd == nil {
		m.SetVoters(r.voters)
		return nil
	}
	return m.Apply(r.cmd)
}

// append commits a record, whoever asked for it, and returns its outcome. The
// nodes hear of it one by one, some of them twice.
func (w *world) append(r record) *pb.Outcome {
	r.out = w.oracle.take(w, r)
	w.log = append(w.log, r)
	for _, n := range w.nodes {
		w.after(w.mostly(20*time.Millisecond), n.hear)
		if !w.peace && w.chance(0.1) {
			w.after(w.some(time.Second), n.hear)
		}
	}
	return r.out
}

// leads tells whether n could be the leader: a voter that talks with a
// majority of the voters.
func (w *world) leads(n *node, voters []string) bool {
	heard := 0
	for _, id := range voters {
		if w.connected(n, w.node(id)) {
			heard++
		}
	}
	return heard > len(voters)/2 && slices.Contains(voters, n.id)
}

// leader is somebody who leads and talks with n; nil where there is none. Two
// in a row may be different ones.
func (w *world) leader(n *node) *node {
	var able []*node
	for _, id := range w.voters {
		if l := w.node(id); w.connected(n, l) && w.leads(l, w.voters) {
			able = append(able, l)
		}
	}
	if len(able) == 0 {
		return nil
	}
	return able[w.rng.IntN(len(able))]
}

// snapshot is a machine in bytes.
type snapshot struct {
	bytes []byte
	at    int // records of the log in it
}

func (w *world) freeze(m *raftstore.Machine, at int) *snapshot {
	var b bytes.Buffer
	if _, err := m.Freeze().WriteTo(&b); err != nil {
		w.fail("a snapshot cannot be written: %v", err)
	}
	return &snapshot{b.Bytes(), at}
}

func (n *node) restore(s *snapshot) {
	if err := n.machine.Restore(bytes.NewReader(s.bytes)); err != nil {
		n.w.fail("node %d cannot read a snapshot: %v", n.index, err)
	}
	n.applied = s.at
}

// hear applies what the log holds, if this node belongs to it and hears a
// leader; after a start sometimes only a part of it at first, and where it is
// far behind sometimes by the leader's snapshot.
func (n *node) hear() {
	w := n.w
	if !n.alive || !slices.Contains(w.servers, n.id) || w.leader(n) == nil {
		return
	}
	end := len(w.log)
	switch {
	case end > n.applied+10 && w.chance(0.2):
		w.trace("node %d gets a snapshot", n.index)
		n.restore(w.freeze(w.oracle.machine, end))
	case end > n.applied && !w.peace && w.chance(0.2):
		end = n.applied + w.rng.IntN(end-n.applied)
		n.later(10*time.Millisecond, n.hear)
	}
	for ; n.applied < end; n.applied++ {
		r := w.log[n.applied]
		if out := r.apply(n.machine); out.GetCode() != r.out.GetCode() || out.GetResult().GetRevision() != r.out.GetResult().GetRevision() {
			w.fail("Order: entry %d of the log is %v to node %d, and %v to others", n.applied, out, n.index, r.out)
		}
	}
	n.readLog()
}

// trim forgets some history.
func (w *world) trim() {
	below := uint64(w.oracle.machine.Revision())
	if below == 0 || w.leader(w.someNode()) == nil {
		return
	}
	w.trace("history is trimmed")
	w.append(record{cmd: command(&pb.Command{Do: &pb.Command_TrimHistory{TrimHistory: &pb.TrimHistory{Below: 1 + w.rng.Uint64N(below)}}})})
}
