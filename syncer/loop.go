package syncer

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// LoopConfig is what a Loop is told once.
type LoopConfig struct {
	Self string // this node's id: whose commits are one's own
	Tree string
	// Settle is how long an absence must last, and how long deletions must be
	// quiet, before they are offered.
	Settle time.Duration
	// Burst bounds how long a run of deletions may go on before it is judged.
	Burst time.Duration
	// Window is the sliding window of the mass-deletion guard.
	Window    time.Duration
	MaxDelete manifest.DeleteLimit
	// BigFile is the size in bytes from which a file travels in a changeset of
	// its own, so that others need not wait for it.
	BigFile int64
	// BatchChanges, BatchBytes and BatchContent bound a changeset: the number
	// of changes, their bytes in the log, and the content behind them.
	BatchChanges int
	BatchBytes   int
	BatchContent int64
	// Adopt offers what a joiner's tree holds instead of holding it back.
	Adopt bool
	// Edits says what becomes of edits in this tree.
	Edits manifest.Edits
	// Placing: nothing is done before the first Placed.
	Placing bool
	// Former tells whether a path held some content in an earlier revision, as far
	// as history reaches back. It reads the log; may be nil.
	Former func(manifest.Path, manifest.Entry) bool
	// Rank orders what is materialized together, lower first. May be nil.
	Rank func(manifest.Path) int
}

// DefaultLoopConfig has the values that production uses.
func DefaultLoopConfig(self, tree string) LoopConfig {
	return LoopConfig{
		Self: self, Tree: tree,
		Settle: time.Second, Burst: 15 * time.Second, Window: time.Minute,
		MaxDelete: manifest.DefaultDeleteLimit(),
		BigFile:   4 << 20, BatchChanges: 400, BatchBytes: 48 << 10, BatchContent: 32 << 20,
	}
}

// State is what survives a restart: what the executor loads and hands in.
type State struct {
	Ancestors *AncestorMap // nil: none
	Notes     map[manifest.Path]Note
	// Joiner: this tree has never agreed with the log; what stands on disk is
	// unknown to the cluster.
	Joiner bool
	// Lost, with Joiner: it did agree, and the records of it are lost. What
	// differs from the log is held, whichever of both is newer.
	Lost bool
	// Aside, of a joiner: what the log does not hold goes aside instead of being
	// held: it is of a life of the cluster that is over.
	Aside bool
	// Closed: the tree took no edits when it was open last. What was edited then is
	// held, even if it takes edits now.
	Closed bool
	// Followed: the disk has followed every revision up to this one, as Follow
	// last told.
	Followed manifest.Revision
	// Begun, with Joiner: something may have gone out since it joined, as of
	// Followed. What the log says after that is news to it as to any other node.
	Begun bool
	// Reached: the disk may hold what was committed up to this revision, as the
	// last Apply said.
	Reached manifest.Revision
	// SameBoot: the machine has not lost power since the last Follow, so the
	// disk holds everything that was ever seen on it.
	SameBoot bool
}

// Floor is the revision that the log must have reached before it says anything
// about this disk: after a restart Raft replays what is old.
func (st State) Floor() manifest.Revision {
	floor := max(st.Followed, st.Reached)
	if st.Ancestors != nil {
		st.Ancestors.All(func(_ manifest.Path, a Ancestor) bool {
			floor = max(floor, a.Revision)
			return true
		})
	}
	return floor
}

// Loop decides, for one tree, what is to be done: the three-way comparison of
// ancestor, disk and log, path by path, and the order of the work that follows
// from it. It is pure: Handle takes what happened and returns what to do, and
// nothing else goes in or out. It is driven by one goroutine at a time.
//
// A path that is not in agreement, or may not be, has a work item; a path
// without one is taken to be as its ancestor says, which materializing checks.
type Loop struct {
	cfg   LoopConfig
	now   time.Time
	state State

	anc   *AncestorMap
	notes map[manifest.Path]Note
	view  manifest.View
	floor manifest.Revision // State.Floor: the view must have reached it

	works  *workMap
	ready  pathSet // to be decided in this call
	looks  pathSet // to be looked at in this call
	timers timerHeap

	place Placed // where the tree lies

	unread  []Trouble // directories that the last complete scan could not list
	careful pathSet   // those with a note of it: what stands below is unknown (loop_unread.go)
	scanned bool      // the first scan since the root was found is complete
	rooted  bool      // a scan was complete in this run, so that a loss is one of events, too
	refill  bool      // what is unknown in the root goes aside: it is filled anew, or of an older life
	// otherRoot: this run began with another root, of which offers may still be committed.
	otherRoot bool
	begun     *manifest.Revision // of a joiner of this run: the view that it was first compared with
	joined    bool               // no joiner any more, which is told when all is quiet: a crash before that begins anew
	afterCut  bool               // this run began after a loss of power: the log may yet tell of offers of before
	cutSeen   bool               // after a loss of power: what differed when all was known for the first time is marked
	rootLost  string             // why nothing may be done, "" if all is well

	queue    pathSet // settled, to be offered with the next batch
	removals pathSet // judged deletions, to be offered likewise
	leaving  pathSet // directories to be removed or replaced once nothing is left in them
	toApply  pathSet // staged: blob here, step ready
	// Big files go each for itself, so that nobody waits for them.
	bigQueue   pathSet
	bigToApply pathSet

	batches   map[uint64][]manifest.Path // under way
	lastBatch uint64
	lane      uint64 // the batch of small changes that is under way, 0: none
	applying  int    // steps of the small Apply under way

	brake   brake
	rulings map[manifest.Path]Verb
	repairs repairs
	shut    shut
	wants   map[manifest.Digest][]manifest.Path // blobs asked for, and who wants them
	asks    []manifest.BlobRef                  // to be asked for in this call
	bases   manifest.Bases                      // of these
	lacks   map[manifest.Digest]lack            // asked for in vain, and not had since

	told manifest.Revision // the newest that Status named as applied

	out []Effect
}

// NewLoop starts from persisted state. Its first effect is asked for with
// Handle(now, Tick{}).
func NewLoop(cfg LoopConfig, st State) *Loop {
	l := &Loop{
		cfg: cfg, state: st, anc: st.Ancestors, notes: st.Notes,
		works: newWorkMap(), ready: pathSet{}, looks: pathSet{},
		queue: pathSet{}, removals: pathSet{}, leaving: pathSet{}, toApply: pathSet{},
		bigQueue: pathSet{}, bigToApply: pathSet{},
		batches: map[uint64][]manifest.Path{}, rulings: map[manifest.Path]Verb{},
		wants: map[manifest.Digest][]manifest.Path{}, brake: newBrake(), careful: pathSet{},
		lacks: map[manifest.Digest]lack{}, repairs: newRepairs(),
	}
	if l.anc == nil {
		l.anc = NewAncestorMap()
	}
	l.refill = st.Joiner && st.Aside
	l.afterCut = !st.SameBoot
	l.place.Unknown = cfg.Placing
	if l.notes == nil {
		l.notes = map[manifest.Path]Note{}
	}
	for p, n := range l.notes {
		if n.Guard.unread() {
			l.careful.add(p)
		}
	}
	l.view.Manifest = manifest.New()
	l.floor = st.Floor()
	if n, ok := l.notes[""]; ok && n.Guard == GuardRoot {
		l.rootLost = n.Why
	}
	l.out = append(l.out, Rescan{})
	return l
}

// Handle takes one event and returns what is to be done now, in order.
func (l *Loop) Handle(now time.Time, ev Event) []Effect {
	l.now = now
	switch ev := ev.(type) {
	case Hinted:
		for _, p := range ev.Paths {
			l.hint(p)
			w := l.works.get(p)
			if ev.Witnessed {
				w.witnesses()
			}
			w.unheard = w.unheard || l.rooted && !l.scanned
		}
	case Looked:
		l.looked(ev)
	case Committed:
		l.committed(ev)
	case Proposed:
		l.proposed(ev)
	case Fetched:
		l.fetched(ev)
	case PeerBack:
		l.peerBack()
	case Applied:
		l.applied(ev)
	case RootLost:
		l.loseRoot(ev.Why)
	case RootBack:
		l.findRoot(ev.Fresh, ev.Aside)
	case Scanned:
		l.scanEnded(ev.Unread)
	case Placed:
		l.placed(ev)
	case Ruling:
		l.rule(ev)
	case Tick:
	}
	l.fireTimers()
	l.decideReady()
	l.maybeJoined()
	l.maybeOpened()
	l.maybeRead()
	l.flushAsks()
	l.flushLooks()
	l.tellFollowed()
	if at, ok := l.timers.next(); ok {
		l.emit(Wake{At: at})
	}
	out := l.out
	l.out = nil
	return out
}

// Ancestor returns a copy of the ancestor as it stands, in O(1).
func (l *Loop) Ancestor() *AncestorMap { return l.anc.Clone() }

// tellFollowed has it persisted how far the disk has followed, when all is
// quiet.
func (l *Loop) tellFollowed() {
	if !l.mayAct() {
		return
	}
	if l.joined && l.allStuck() {
		l.joined = false
		l.emit(Joined{})
	}
	sameBoot := l.state.SameBoot || l.overcome()
	switch {
	case sameBoot && l.works.len() == 0 && (l.view.Revision > l.state.Followed || !l.state.SameBoot):
		l.state.Followed = l.view.Revision
		l.emit(Follow{Revision: l.view.Revision})
	case sameBoot && !l.state.SameBoot:
		l.emit(Follow{Revision: l.state.Followed})
	}
	l.state.SameBoot = sameBoot
}

// overcome tells whether everything that a loss of power had left has been
// looked at and decided: what differed after the first complete scan has come
// to rest once, path by path, whatever else is written meanwhile.
func (l *Loop) overcome() bool {
	if len(l.unread) > 0 {
		return false
	}
	left := false
	l.works.each(func(w *work) bool {
		if !l.cutSeen {
			w.cut = true
		}
		left = left || w.cut
		return !(left && l.cutSeen)
	})
	l.cutSeen = true
	return !left
}

// mayAct tells whether anything may be decided: the root is ours, its first
// scan is complete, and there is a view (which there is only once the log has
// caught up with what this disk agreed on: a manifest never goes backwards).
func (l *Loop) mayAct() bool {
	return !l.place.Unknown && l.rootLost == "" && l.scanned && l.view.Tree != ""
}

func (l *Loop) emit(e Effect) { l.out = append(l.out, e) }

// committed takes the log's news and finds the paths that it concerns.
func (l *Loop) committed(ev Committed) {
	first := l.view.Tree == ""
	if ev.View.Revision < max(l.view.Revision, l.floor, l.state.Followed) {
		return // late news, or of a log that has yet to reach what this disk agreed on
	}
	was := l.view
	l.view = ev.View
	if ev.Jump || first {
		base := was.Manifest
		if first {
			base = l.anc.manifest()
		}
		manifest.Diff(base, l.view.Manifest, func(p manifest.Path, _, is manifest.Node) {
			rev := is.Revision
			if is.Entry.Absent() {
				rev = l.view.Revision
			}
			l.concern(p, rev)
		})
	}
	live := !ev.Jump && !first
	others := ev.Jump // have deleted something, or may have
	if first {
		l.countCommits(ev.Lately)
	} else {
		l.countCommits(ev.Commits)
	}
	for _, c := range ev.Commits {
		own := l.ours(c)
		mount := own && c.Origin.Kind == manifest.FromMount && l.shared()
		for _, ch := range c.Changes {
			others = others || live && ch.Old.Entry.IsLeaf() && !ch.New.IsLeaf() && !(own && c.ID.Node == l.cfg.Self)
			if a, ok := l.anc.Get(ch.Path); ok && c.Revision <= a.Revision {
				continue // recorded after the last Follow: the disk is past it
			}
			w := l.works.get(ch.Path)
			if w == nil && !live {
				if c.Revision <= l.state.Followed || !l.vanished(ch.Path) {
					continue // the comparison found that it agrees
				}
				// It came and went while nobody here looked: what stands there
				// may be late, and must not bring it back.
				w = l.works.ensure(ch.Path)
				l.lookNow(w)
			}
			w = l.works.ensure(ch.Path)
			w.news = w.news || live
			// After a loss of power only what was offered since is this disk's.
			w.chain = append(w.chain, link{
				entry: ch.New, revision: c.Revision, old: ch.Old.Revision, was: ch.Old.Entry,
				own: own && (mount || !l.afterCut || w.sent != nil && w.sent.Same(ch.New)), mount: mount, live: live, from: c.Origin.ID, self: c.ID.Node == l.cfg.Self,
			})
			l.concern(ch.Path, c.Revision)
		}
	}
	if others {
		l.judgeAgain() // without that, what waits may be all there is
	}
	l.works.each(func(w *work) bool { // answered proposals wait for the view
		if w.phase == awaiting && l.view.Revision >= w.awaits {
			l.ready.add(w.path)
		}
		return true
	})
	if first {
		l.readyAll()
	}
}

// vanished tells whether p stands neither in the ancestor nor in the log.
func (l *Loop) vanished(p manifest.Path) bool {
	_, agreed := l.anc.Get(p)
	_, committed := l.view.Manifest.Get(p)
	return !agreed && !committed
}

// concern marks a path that the log has changed.
func (l *Loop) concern(p manifest.Path, rev manifest.Revision) {
	w := l.works.ensure(p)
	if w.pending == 0 {
		w.pending = rev
	}
	if w.phase == toLook && w.doubtful() {
		w.mount.doubts = 0
		l.lookNow(w)
	}
	l.ready.add(p)
}

func (l *Loop) readyAll() {
	l.works.each(func(w *work) bool { l.ready.add(w.path); return true })
}

func (l *Loop) scanEnded(unread []Trouble) {
	l.scanned, l.rooted, l.unread = true, true, unread
	l.markShut()
	l.readyAll()
}

// maybeJoined ends the joiner's state once everything that stood on its disk
// has been looked at and decided.
func (l *Loop) maybeJoined() {
	if !l.state.Joiner || !l.mayAct() {
		return
	}
	if !l.holdStuck(l.works.each) {
		return
	}
	if l.state.Aside { // what cannot go aside now must not be taken for an edit later
		l.works.each(func(w *work) bool {
			if l.rulings[w.path] == Restore && w.obs.Sight == Seen {
				l.note(w.path, Note{Guard: GuardJoiner, Why: "could not be put aside: " + w.why, Entry: w.obs.Entry})
			}
			return true
		})
	}
	l.noteUnread()
	l.state.Joiner, l.state.Aside, l.state.Lost, l.refill = false, false, false, false
	l.joined = true
}

// lost says why the disk's content loses: of an older life, or as otherwise.
func (l *Loop) lost(otherwise string) string {
	if l.state.Joiner && l.state.Aside {
		return "it stood here before the cluster was recovered, and the recovered cluster does not hold it"
	}
	return otherwise
}

// loseRoot voids everything that was seen or is under way.
func (l *Loop) loseRoot(why string) {
	if l.rootLost == why {
		return
	}
	l.rootLost = why
	l.scanned = false
	l.note("", Note{Guard: GuardRoot, Why: why})
	l.works.each(func(w *work) bool {
		if w.phase == looking || w.phase == settled {
			l.lookNow(w)
		}
		return true
	})
	l.brake.void()
	clear(l.removals)
}

func (l *Loop) findRoot(fresh, aside bool) {
	if l.rootLost == "" && !fresh {
		return
	}
	l.rootLost = ""
	l.scanned = false
	l.forget("")
	if fresh {
		l.rooted, l.otherRoot = false, true
		l.state.Begun, l.begun = false, nil
		l.state.Joiner, l.state.Aside, l.joined = true, aside, false
		l.refill = l.refill || aside
		clear(l.brake.places)
		l.dropAncestors()
		l.knownMount()
	} else {
		l.refill = l.state.Joiner && l.state.Aside // it came back by itself
	}
	l.emit(Rescan{})
}

// dropAncestors makes the disk unknown: after a new marker nothing that was
// agreed on can be taken for a deletion.
func (l *Loop) dropAncestors() {
	var updates []Update
	l.anc.All(func(p manifest.Path, _ Ancestor) bool {
		updates = append(updates, Update{Path: p})
		return true
	})
	if len(updates) > 0 {
		l.emit(Record{Updates: updates})
	}
	l.anc = NewAncestorMap()
	l.floor, l.told, l.state.Followed, l.state.Reached = 0, 0, 0, 0
	l.works.each(func(w *work) bool {
		w.chain, w.witnessed, w.sighted, w.unheard = nil, false, false, false
		w.void = w.phase == offered || w.phase == awaiting || w.phase == applying
		return true
	})
	l.view.Manifest.All(func(p manifest.Path, n manifest.Node) bool {
		w := l.works.ensure(p)
		w.pending = n.Revision
		return true
	})
}

func (l *Loop) allStuck() (all bool) {
	all = true
	l.works.each(func(w *work) bool { all = w.stuck(); return all })
	return all
}
