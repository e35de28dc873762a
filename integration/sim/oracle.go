package sim

import (
	"bytes"
	"time"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// oracle is a machine that is always up to date, and what every commit says,
// also where the machine has forgotten it.
type oracle struct {
	machine *raftstore.Machine
	seen    map[manifest.Digest]manifest.Revision       // content, by the revision that brought it last
	left    map[manifest.Digest]manifest.Revision       // … and that took it from a path last
	held    map[manifest.Path]map[content]bool          // what each path has ever held
	commits map[manifest.ChangesetID]manifest.Revision  // of changesets that made one
	refused map[manifest.ChangesetID][]manifest.Refusal // of answers
	removed map[string]bool
	last    manifest.Revision
	deleted time.Time // when anything was last removed
	brake   brake
}

func newOracle() oracle {
	return oracle{
		machine: raftstore.NewMachine(), seen: map[manifest.Digest]manifest.Revision{}, held: map[manifest.Path]map[content]bool{},
		left:    map[manifest.Digest]manifest.Revision{},
		commits: map[manifest.ChangesetID]manifest.Revision{}, refused: map[manifest.ChangesetID][]manifest.Refusal{},
		removed: map[string]bool{}, brake: newBrake(),
	}
}

// content is what a reader of a path would read.
type content struct {
	kind   manifest.Kind
	digest manifest.Digest
	target string
}

func contentOf(e manifest.Entry) content { return content{e.Kind, e.Digest, e.Target} }

// hasHeld tells whether a path has held a file or a symlink in any revision.
func (o *oracle) hasHeld(p manifest.Path, e manifest.Entry) bool { return o.held[p][contentOf(e)] }

// take applies a record of the log and checks what it has made.
func (o *oracle) take(w *world, r record) *pb.Outcome {
	out := r.apply(o.machine)
	if gone := r.cmd.GetRemoveMember().GetId(); gone != "" {
		o.removed[gone] = true
	}
	expects := map[manifest.Path]manifest.Revision{}
	for _, c := range r.cmd.GetPropose().GetChanges() {
		expects[manifest.Path(c.GetPath())] = manifest.Revision(c.GetExpect())
	}
	commits, _ := o.machine.Since(treeName, o.last)
	for _, c := range commits {
		if c.Revision != o.last+1 {
			w.fail("Order: revision %d follows %d", c.Revision, o.last)
		}
		if was := o.commits[c.ID]; was != 0 {
			w.fail("Order: changeset %s is revision %d and %d", c.ID, was, c.Revision)
		}
		o.commits[c.ID], o.last = c.Revision, c.Revision
		for _, ch := range c.Changes {
			if ch.Old.Revision != expects[ch.Path] {
				w.fail("NoLoss: revision %d replaces %q of revision %d, and had seen %d", c.Revision, ch.Path, ch.Old.Revision, expects[ch.Path])
			}
		}
		o.commit(w, c)
	}
	return out
}

func (o *oracle) commit(w *world, c manifest.Commit) {
	o.brake.take(w, c)
	for _, ch := range c.Changes {
		w.trace("revision %d by %s: %q is now %s", c.Revision, c.ID, ch.Path, ch.New)
		if ch.New.Absent() {
			o.deleted = w.now
		}
		if ch.Old.Entry.HasContent() {
			o.left[ch.Old.Entry.Digest] = c.Revision
		}
		if ch.New.IsLeaf() {
			if o.held[ch.Path] == nil {
				o.held[ch.Path] = map[content]bool{}
			}
			o.held[ch.Path][contentOf(ch.New)] = true
		}
		if !ch.New.HasContent() {
			continue
		}
		o.seen[ch.New.Digest] = c.Revision
		if ch.New.Size == 0 || w.ledger.torn[ch.New.Digest] {
			w.fail("NoTornFile: revision %d has half a file in %q", c.Revision, ch.Path)
		}
		if have := w.holders(ch.New.Digest, w.voters); have <= len(w.voters)/2 {
			w.fail("NoLoss: revision %d has %q, which %d of the %d voters hold", c.Revision, ch.Path, have, len(w.voters))
		}
	}
}

// holders counts those of some voters that have content on their disks; one
// whose store was wiped had it, until the log knows better.
func (w *world) holders(d manifest.Digest, voters []string) (have int) {
	for _, id := range voters {
		if w.node(id).store.durable[d] {
			have++
		}
	}
	for _, m := range w.oracle.machine.Members() {
		for _, id := range voters {
			if string(m.ID) == id && m.Store != w.node(id).store.id && !w.node(id).store.durable[d] {
				have++
			}
		}
	}
	return have
}

func (o *oracle) view() manifest.View {
	v, ok := o.machine.View(treeName)
	if !ok {
		v.Manifest = manifest.New()
	}
	return v
}

// retained lists the content that stands behind the manifest and the history
// that is left.
func (o *oracle) retained() (out []manifest.Digest) {
	have := map[manifest.Digest]bool{}
	keep := func(e manifest.Entry) {
		if e.HasContent() && !have[e.Digest] {
			have[e.Digest] = true
			out = append(out, e.Digest)
		}
	}
	o.view().Manifest.All(func(_ manifest.Path, n manifest.Node) bool { keep(n.Entry); return true })
	for _, c := range o.machine.History(treeName, 0, 0) {
		for _, ch := range c.Changes {
			keep(ch.Old.Entry)
			keep(ch.New)
		}
	}
	return out
}

// acknowledged: what a proposer hears is what the log says.
func (o *oracle) acknowledged(w *world, cs manifest.Changeset, res manifest.Result) {
	if o.commits[cs.ID] != res.Revision {
		w.fail("Order: changeset %s is acknowledged as revision %d, the log has it as %d", cs.ID, res.Revision, o.commits[cs.ID])
	}
}

// checkOrder: every machine that has read the whole log is the oracle's.
func (w *world) checkOrder() {
	want := w.freeze(w.oracle.machine, len(w.log))
	for _, n := range w.nodes {
		if n.gone || n.applied < len(w.log) {
			continue
		}
		if !bytes.Equal(want.bytes, w.freeze(n.machine, n.applied).bytes) {
			w.fail("Order: node %d has another state than the log", n.index)
		}
	}
}
