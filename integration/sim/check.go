package sim

import (
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// oracle is a machine that is always up to date.
type oracle struct {
	machine *raftstore.Machine
	applied int
	outcome *pb.Outcome
	seen    map[manifest.Digest]bool
	last    manifest.Revision
}

// answer applies the log up to its first upTo commands, which must end with
// the one that is asked about, and returns that one's outcome.
func (w *world) answer(upTo int) *pb.Outcome {
	o := &w.oracle
	if o.machine == nil {
		o.machine, o.seen = newMachine(w), map[manifest.Digest]bool{}
	}
	for ; o.applied < upTo; o.applied++ {
		o.outcome = o.machine.Apply(w.log[o.applied])
	}
	commits, _ := o.machine.Since(treeName, o.last)
	ids := map[manifest.ChangesetID]bool{}
	for _, c := range commits {
		if c.Revision != o.last+1 {
			w.fail("Order: revision %d follows %d", c.Revision, o.last)
		}
		if ids[c.ID] {
			w.fail("Order: changeset %s was committed twice", c.ID)
		}
		ids[c.ID] = true
		o.last = c.Revision
		for _, ch := range c.Changes {
			w.trace("revision %d by %s: %q is now %s", c.Revision, c.ID.Node, ch.Path, ch.New)
			o.seen[ch.New.Digest] = true
			if ch.New.HasContent() && (ch.New.Size == 0 || ch.New.Digest == manifest.DigestOf([]byte("torn"))) {
				w.fail("NoTornFile: revision %d has a torn %q", c.Revision, ch.Path)
			}
		}
	}
	return o.outcome
}

func (w *world) answerView() *manifest.Manifest {
	w.answer(len(w.log))
	v, ok := w.oracle.machine.View(treeName)
	if !ok {
		return manifest.New()
	}
	return v.Manifest
}

func (w *world) inHistory(d manifest.Digest) bool {
	w.answer(len(w.log))
	return w.oracle.seen[d]
}

// checkPeace: after writes have stopped and everybody talks, every tree equals
// the committed manifest.
func (w *world) checkPeace() {
	want := w.answerView()
	for _, n := range w.nodes {
		if st := n.loop.Status(); st.Revision != w.oracle.machine.Revision() {
			w.fail("Converge: node %d has heard of revision %d of %d", n.index, st.Revision, w.oracle.machine.Revision())
		} else if st.Applied != st.Revision {
			w.fail("Converge: node %d says it has applied %d of %d: %q", n.index, st.Applied, st.Revision, n.loop.Works())
		} else if st.Unsettled > 0 || len(st.Notes) > 0 {
			w.fail("Converge: node %d has %d unsettled paths and notes %v: %q", n.index, st.Unsettled, st.Notes, n.loop.Works())
		}
		for _, p := range n.disk.below("") {
			if have := n.disk.at[p].entry(); !have.Same(want.Entry(p)) {
				w.fail("Converge: node %d has %q as %s (%q), the log says %s", n.index, p, have, n.disk.at[p].text, want.Entry(p))
			}
		}
		want.All(func(p manifest.Path, node manifest.Node) bool {
			if n.disk.at[p] == nil {
				w.fail("Converge: node %d lacks %q, the log says %s", n.index, p, node.Entry)
			}
			return true
		})
	}
}
