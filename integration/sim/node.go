package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/syncer"
)

// node is one daemon with its machine, its gateway and its operator: a real
// Loop over a model executor.
type node struct {
	w      *world
	index  int
	id     string
	leases bool           // of its file system
	adopt  bool           // as its joiner was told
	edits  manifest.Edits // what becomes of them, by this life's settings

	on     *mount // that it shares with others; nil: its tree is its own
	acting bool   // it is the steward, as it knows
	downAt time.Time

	// On the machine's disks.
	disk  *disk
	store *store
	saved saved
	seq   uint64    // of proposals, durable
	snap  *snapshot // that Raft starts from
	epoch uint64    // of its announcement

	// Of the machine.
	skew time.Duration // of its clock
	boot bool          // no power was lost since the last Follow
	root root
	gone bool // removed for good

	// In the daemon's memory.
	alive   bool
	life    int // what was begun in an earlier one comes to nothing
	loop    *syncer.Loop
	machine *raftstore.Machine
	applied int // records of the log, by the machine
	reader  reader
	wake    time.Time
	jobs    []job // to be persisted, in order
	rest    map[manifest.Path]resting
	rules   rules
}

// saved is what the executor persists.
type saved struct {
	ancestors map[manifest.Path]syncer.Ancestor
	notes     map[manifest.Path]syncer.Note
	asides    []aside
	displaced []displaced
	joined    bool
	begun     bool
	closed    bool
	followed  manifest.Revision
	reached   manifest.Revision
}

func (w *world) newNode() *node {
	n := &node{
		w: w, index: len(w.nodes), leases: !w.chance(w.opt.Leaseless),
		disk: newDisk(), boot: true,
		saved: saved{ancestors: map[manifest.Path]syncer.Ancestor{}, notes: map[manifest.Path]syncer.Note{}},
	}
	n.id = fmt.Sprintf("n-%d", n.index)
	n.store = newStore(fmt.Sprintf("s-%d", n.index))
	n.rules = newRules()
	n.edits = w.someEdits()
	w.nodes = append(w.nodes, n)
	return n
}

// announcement is what the node says of itself.
func (n *node) announcement() *pb.Command {
	return command(&pb.Command{TimeNs: n.wall(), Do: &pb.Command_PutMember{PutMember: &pb.PutMember{
		Member: &pb.Member{Id: n.id, Name: n.id, Store: n.store.id, AddressEpoch: n.epoch},
	}}})
}

// wall is what the machine's clock says. The loop's timers do not follow it:
// they are monotone, and so is the time that the loop is told.
func (n *node) wall() int64 { return n.w.now.Add(n.skew).UnixNano() }

func (n *node) stepClock() {
	n.skew += n.w.some(48*time.Hour) - 24*time.Hour
	n.w.trace("node %d: clock steps to %+v", n.index, n.skew)
}

// later schedules something that dies with this life of the daemon.
func (n *node) later(most time.Duration, do func()) {
	life := n.life
	n.w.after(n.w.mostly(most), func() {
		if n.alive && n.life == life {
			do()
		}
	})
}

func (n *node) start() {
	if n.alive || n.gone {
		return
	}
	w := n.w
	w.trace("node %d starts", n.index)
	n.alive, n.wake, n.jobs = true, time.Time{}, nil
	n.rest = map[manifest.Path]resting{}
	n.life++
	n.seq = (n.seq/raftRange + 1) * raftRange

	n.machine, n.applied = raftstore.NewMachine(), 0
	if n.snap != nil {
		n.restore(n.snap)
	}
	st := syncer.State{
		Ancestors: syncer.NewAncestorMap(), Notes: map[manifest.Path]syncer.Note{},
		Joiner: !n.saved.joined, Begun: n.saved.begun, Closed: n.saved.closed, SameBoot: n.boot, Followed: n.saved.followed, Reached: n.saved.reached,
	}
	for p, a := range n.saved.ancestors {
		st.Ancestors.Set(p, a)
	}
	for p, note := range n.saved.notes {
		st.Notes[p] = note
	}
	n.reader = reader{at: st.Followed, floor: st.Floor(), began: st}
	n.reader.began.Ancestors = st.Ancestors.Clone()
	cfg := syncer.DefaultLoopConfig(n.id, treeName)
	n.edits = n.settings()
	cfg.MaxDelete, cfg.Adopt, cfg.Edits = w.opt.Limit, n.adopt, n.edits
	n.saved.closed = n.saved.closed || n.edits != manifest.EditsOffered
	cfg.Placing = n.on != nil
	if cfg.Placing {
		cfg.Former = n.former
	}
	n.loop = syncer.NewLoop(cfg, st)
	n.rules.started(st.Joiner, n.saved.notes)
	n.post(syncer.Tick{})
	n.acting = false
	n.later(500*time.Millisecond, n.hearPlace)
	n.foundRoot()
	n.hear()
	n.announce()
	n.housekeep()
	n.judgeLater()
}

// raftRange is how many sequences Raft's store reserves at once; those of an
// earlier life are never used again.
const raftRange = 4096

// housekeep scans, listens and takes a snapshot from time to time.
func (n *node) housekeep() {
	n.w.after(10*time.Second+n.w.some(10*time.Second), n.mortal(func() {
		if n.on == nil || n.acting {
			n.do(syncer.Rescan{})
		}
		n.hear()
		if n.w.chance(0.3) {
			n.snap = n.w.freeze(n.machine, n.applied)
		}
		n.housekeep()
	}))
}

// mortal makes do come to nothing after this life.
func (n *node) mortal(do func()) func() {
	life := n.life
	return func() {
		if n.alive && n.life == life {
			do()
		}
	}
}

// announce makes the log know this node's blob store, as often as it takes. It
// tries again soon, as a ticker does: "later" would now and then be minutes.
func (n *node) announce() {
	again := func() { n.w.after(n.w.some(2*time.Second), n.mortal(n.announce)) }
	if slices.ContainsFunc(n.machine.Members(), func(m memberInfo) bool { return string(m.ID) == n.id && m.Store != n.store.id }) {
		if l := n.w.leader(n); l != nil && !n.gone {
			n.w.append(record{cmd: n.announcement()})
		}
		again()
	} else if n.applied < len(n.w.log) {
		again()
	}
}

// crash ends the daemon; power tells that the machine goes with it.
func (n *node) crash(power bool) {
	if !n.alive {
		return
	}
	n.w.trace("node %d crashes, power %v", n.index, power)
	n.alive, n.downAt = false, n.w.now
	n.life++
	if power {
		n.boot = false
		n.powerCut()
	}
}

// mishap is a crash between two steps of one piece of work, where it hurts.
func (n *node) mishap() bool {
	if n.w.peace || !n.w.chance(n.w.opt.Mishaps) {
		return false
	}
	n.w.trace("node %d has a mishap", n.index)
	n.crash(n.w.chance(0.3))
	n.w.after(n.w.some(4*time.Second), n.start)
	return true
}

// reader reads the log for the loop, as the executor does.
type reader struct {
	at    manifest.Revision // told to the loop
	floor manifest.Revision // before which the log says nothing
	read  bool              // anything was told in this life
	began syncer.State      // that this life began with, until the log was read once
}

// readLog posts what was committed since the last time.
func (n *node) readLog() {
	r := &n.reader
	view, ok := n.machine.View(treeName)
	if !ok || view.Revision < max(r.at, r.floor) || r.read && view.Revision == r.at {
		return
	}
	commits, whole := n.machine.Since(treeName, r.at)
	ev := syncer.Committed{View: view, Jump: !whole}
	if !r.read {
		ev.Lately = n.lately()
	}
	for _, c := range commits {
		if !r.read {
			c.Changes = r.news(c)
		}
		ev.Commits = append(ev.Commits, c)
	}
	r.at, r.read, r.began = view.Revision, true, syncer.State{}
	n.post(ev)
	n.mishap()
}

// lately is syncer's: what was committed within the brake's window.
func (n *node) lately() (lately []manifest.Commit) {
	for _, c := range slices.Backward(n.machine.History(treeName, 0, 0)) {
		if time.Duration(n.wall()-c.Time).Abs() <= time.Minute {
			lately = append(lately, c)
		}
	}
	return lately
}

// news is syncer's: what of a commit is news to the state of the start.
func (r *reader) news(c manifest.Commit) []manifest.Committed {
	if r.began.Joiner && !r.began.Begun {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Changes), func(ch manifest.Committed) bool {
		a, ok := r.began.Ancestors.Get(ch.Path)
		return ok && a.Revision >= c.Revision
	})
}
