package sim

import (
	"fmt"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/syncer"
)

// node is one daemon with its machine: a real Loop over a model executor.
type node struct {
	w     *world
	index int
	id    string
	store string

	// On the machine's disk.
	disk    *disk
	blobs   map[manifest.Digest]string
	saved   saved
	asides  []syncer.Aside
	seq     uint64
	applied int // of world.log, by the machine (Raft's log is durable)
	machine *raftstore.Machine

	// In the daemon's memory.
	alive bool
	life  int // incarnation; what was begun in an earlier one comes to nothing
	loop  *syncer.Loop
	told  manifest.Revision // to the loop, of the log
	read  bool              // anything was told in this life
	wake  time.Time
	boot  bool // the machine has not lost power since the last start
}

// saved is what the executor persists.
type saved struct {
	ancestors map[manifest.Path]syncer.Ancestor
	notes     map[manifest.Path]syncer.Note
	joined    bool
	followed  manifest.Revision
}

func newNode(w *world, index int) *node {
	return &node{
		w: w, index: index, id: fmt.Sprintf("n-%d", index), store: fmt.Sprintf("s-%d", index),
		disk: newDisk(), blobs: map[manifest.Digest]string{}, machine: newMachine(w), boot: true,
		saved: saved{ancestors: map[manifest.Path]syncer.Ancestor{}, notes: map[manifest.Path]syncer.Note{}, joined: true},
	}
}

func newMachine(w *world) *raftstore.Machine {
	m := raftstore.NewMachine()
	var voters []string
	for i := range w.opt.Nodes {
		voters = append(voters, fmt.Sprintf("n-%d", i))
	}
	m.SetVoters(voters)
	return m
}

// later schedules something that dies with this incarnation of the daemon.
func (n *node) later(most time.Duration, do func()) {
	life := n.life
	n.w.after(n.w.some(most), func() {
		if n.alive && n.life == life {
			do()
		}
	})
}

func (n *node) start(first bool) {
	if n.alive {
		return
	}
	n.alive, n.told, n.wake = true, n.saved.followed, time.Time{}
	n.life++
	n.machine, n.applied, n.read = newMachine(n.w), 0, false // Raft replays its log
	st := syncer.State{Ancestors: syncer.NewAncestorMap(), Notes: map[manifest.Path]syncer.Note{}, Joiner: !n.saved.joined, SameBoot: n.boot, Followed: n.saved.followed}
	for p, a := range n.saved.ancestors {
		st.Ancestors.Set(p, a)
	}
	for p, note := range n.saved.notes {
		st.Notes[p] = note
	}
	n.boot = true
	cfg := syncer.DefaultLoopConfig(n.id, treeName)
	cfg.MaxDelete = manifest.DeleteLimit{Count: 1 << 30, Percent: 100}
	n.loop = syncer.NewLoop(cfg, st)
	if !first {
		n.w.trace("node %d starts", n.index)
	}
	n.post(syncer.Tick{})
	n.hear()
	n.rescanNow()
}

// rescanNow is the periodic scan, and asks for the log's news now and then.
func (n *node) rescanNow() {
	n.later(20*time.Second, func() {
		n.do(syncer.Rescan{})
		n.hear()
		n.rescanNow()
	})
}

func (n *node) crash(power bool) {
	if !n.alive {
		return
	}
	n.w.trace("node %d crashes, power %v", n.index, power)
	n.alive = false
	n.life++
	if power {
		n.boot = false
		newest := n.w.answerView()
		n.disk.powerCut(func(p manifest.Path) manifest.Digest { return newest.Entry(p).Digest })
	}
}

// hear applies what the log holds, if this node can hear a majority; after a
// start sometimes only a part of it at first. What it posts follows the
// executor: no news before the log has reached what this disk has followed.
func (n *node) hear() {
	if !n.alive || !n.w.majority(n) {
		return
	}
	end := len(n.w.log)
	if n.applied < end && n.w.chance(0.2) {
		end = n.applied + n.w.rng.IntN(end-n.applied)
		n.later(10*time.Millisecond, n.hear)
	}
	for ; n.applied < end; n.applied++ {
		n.machine.Apply(n.w.log[n.applied])
	}
	view, ok := n.machine.View(treeName)
	if !ok || view.Revision < n.told || n.read && view.Revision == n.told {
		return
	}
	commits, reaches := n.machine.Since(treeName, n.told)
	ev := syncer.Committed{View: view, Commits: commits, Jump: !reaches || n.w.chance(0.02)}
	n.told, n.read = view.Revision, true
	n.post(ev)
}

func (n *node) post(ev syncer.Event) {
	if l, ok := ev.(syncer.Hinted); ok && len(l.Paths) == 0 {
		return
	}
	for _, e := range n.loop.Handle(n.w.now, ev) {
		n.do(e)
	}
}

// do carries out an effect, sooner or later.
func (n *node) do(e syncer.Effect) {
	w := n.w
	switch e := e.(type) {
	case syncer.Look:
		for _, at := range e.Paths {
			n.later(5*time.Millisecond, func() { n.look(at) })
		}
	case syncer.Propose:
		n.propose(e)
	case syncer.Fetch:
		for _, ref := range e.Blobs {
			n.later(40*time.Millisecond, func() { n.fetch(ref.Digest) })
		}
	case syncer.Apply:
		n.apply(e.Steps)
	case syncer.Record:
		n.later(time.Millisecond, func() { n.record(e.Updates) })
	case syncer.Remember:
		if e.Note == nil {
			delete(n.saved.notes, e.Path)
		} else {
			n.saved.notes[e.Path] = *e.Note
		}
	case syncer.Follow:
		n.later(time.Millisecond, func() { n.saved.followed = e.Revision })
	case syncer.Joined:
		n.saved.joined = true
	case syncer.Rescan:
		n.later(50*time.Millisecond, n.scan)
	case syncer.Wake:
		if n.wake.IsZero() || e.At.Before(n.wake) || n.wake.Before(w.now) {
			n.wake = e.At
			life := n.life
			w.after(max(e.At.Sub(w.now), 0), func() {
				if n.alive && n.life == life {
					n.wake = time.Time{}
					n.post(syncer.Tick{})
				}
			})
		}
	default:
		w.fail("unknown effect %T", e)
	}
}

func (n *node) look(at syncer.LookAt) {
	i := n.disk.at[at.Path]
	obs := syncer.Observation{Path: at.Path, Sight: syncer.Gone}
	switch {
	case i == nil:
	case i.writing || n.w.chance(0.02):
		obs.Sight = syncer.Busy
	default:
		obs.Sight, obs.Entry, obs.Stamp = syncer.Seen, i.entry(), i.stamp
		if i.kind == manifest.File {
			n.blobs[obs.Entry.Digest] = i.text
		}
	}
	// The observation may be late: what happens until it is posted comes with
	// a hint of its own, or with the next scan.
	n.later(3*time.Millisecond, func() { n.post(syncer.Looked{Observations: []syncer.Observation{obs}}) })
}

func (n *node) propose(e syncer.Propose) {
	n.seq++
	cs := manifest.Changeset{
		ID: manifest.ChangesetID{Node: n.id, Seq: n.seq}, Tree: treeName,
		Origin: manifest.Origin{Kind: manifest.FromTree}, Time: n.w.now.UnixNano(), Changes: e.Changes,
	}
	for _, o := range n.w.nodes {
		if !n.w.connected(n, o) {
			continue
		}
		for _, c := range e.Changes {
			if c.New.HasContent() {
				text, ok := n.blobs[c.New.Digest]
				if !ok {
					n.w.fail("node %d offers %q without its content", n.index, c.Path)
				}
				o.blobs[c.New.Digest] = text
			}
		}
		cs.Receipts = append(cs.Receipts, manifest.Receipt{Node: o.id, Store: o.store})
	}
	life := n.life
	n.w.propose(n, cs, func(r manifest.Result, err error) {
		if n.alive && n.life == life {
			n.post(syncer.Proposed{Batch: e.Batch, Result: r, Err: err})
		}
	})
}

func (n *node) fetch(d manifest.Digest) {
	for _, o := range n.w.nodes {
		if text, ok := o.blobs[d]; ok && n.w.connected(n, o) && !n.w.chance(0.05) {
			n.blobs[d] = text
			n.post(syncer.Fetched{Have: []manifest.Digest{d}})
			return
		}
	}
	n.post(syncer.Fetched{Failed: []manifest.Digest{d}})
}

// record persists the ancestor; what was seen in the tree is flushed first.
func (n *node) record(updates []syncer.Update) {
	for _, u := range updates {
		if i := n.disk.at[u.Path]; u.Flush && i != nil && !i.writing { // half a write that survives a power cut is nobody's to see
			i.flushed = i.text
		}
		if u.Ancestor == nil {
			delete(n.saved.ancestors, u.Path)
		} else {
			n.saved.ancestors[u.Path] = *u.Ancestor
		}
	}
}

// scan hints at whatever differs from the ancestor.
func (n *node) scan() {
	anc := n.loop.Ancestor()
	var hints []manifest.Path
	for _, p := range n.disk.below("") {
		if a, ok := anc.Get(p); !ok || a.Stamp != n.disk.at[p].stamp {
			hints = append(hints, p)
		}
	}
	anc.All(func(p manifest.Path, _ syncer.Ancestor) bool {
		if n.disk.at[p] == nil {
			hints = append(hints, p)
		}
		return true
	})
	n.later(30*time.Millisecond, func() {
		n.post(syncer.Hinted{Paths: hints})
		n.post(syncer.Scanned{})
	})
}
