package syncer

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// Of a tree that several nodes have as one directory (docs/design.md, "The
// shared mount, direct"). All of them see one disk, through caches of their own;
// one of them, the steward, writes what comes from elsewhere. The others
// propose what they saw being written on their own machine, and verify the rest.

const (
	// repairAfter is how long a steward looks again and again before it believes
	// that what the mount itself has committed does not stand there.
	repairAfter = 10 * time.Second
	// doubtFirst and doubtMost are the pauses between such looks.
	doubtFirst = 30 * time.Millisecond
	doubtMost  = 30 * time.Second
	// unseenSettle is for how many settling times an absence has to last that
	// nobody here saw come about.
	unseenSettle = 5
)

// sharedWork is what a work knows more where other nodes have the same disk.
type sharedWork struct {
	doubts  int             // looks in a row that did not see what the log says …
	doubtAt time.Time       // … since
	beaten  manifest.Entry  // what was offered and refused, because another node was first
	kept    manifest.Digest // of what was kept aside last
}

func (w *work) onMount() *sharedWork {
	if w.mount == nil {
		w.mount = &sharedWork{}
	}
	return w.mount
}

// doubtful tells whether the log says something that is not seen.
func (w *work) doubtful() bool { return w.mount != nil && w.mount.doubts > 0 }

func (w *work) noDoubt() {
	if w.mount != nil {
		w.mount.doubts, w.mount.doubtAt = 0, time.Time{}
	}
}

// witnesses notes that this machine's file events tell of a change.
func (w *work) witnesses() { w.witnessed, w.sighted, w.spent = true, false, false }

// weigh weighs the evidence of this machine's file events: they speak of what the
// first look after them sees. What another look finds there instead, and no event
// told of, is another machine's work: an old steward's late rename, for one.
func (w *work) weigh(obs Observation) {
	if obs.Sight != Seen && obs.Sight != Gone {
		return
	}
	if w.sighted && w.obs.Sight != 0 && (obs.Sight != w.obs.Sight || !obs.Entry.Same(w.obs.Entry)) {
		w.witnessed = false
	}
	w.sighted = w.witnessed
}

// shared tells whether other nodes have this very directory.
func (l *Loop) shared() bool { return l.place.Mount != "" }

// steward tells whether what comes from elsewhere is this node's to write.
func (l *Loop) steward() bool { return !l.shared() || l.place.Acting }

// ours tells whether a commit was seen on this very disk first: by this node, or
// by whichever node of the mount.
func (l *Loop) ours(c manifest.Commit) bool {
	switch c.Origin.Kind {
	case manifest.FromTree:
		return c.ID.Node == l.cfg.Self
	case manifest.FromMount:
		return l.shared() && c.Origin.ID == l.place.Mount || c.ID.Node == l.cfg.Self
	}
	return false
}

// origin is where this node's edits come from.
func (l *Loop) origin() manifest.Origin {
	if l.shared() {
		return manifest.Origin{Kind: manifest.FromMount, ID: l.place.Mount}
	}
	return manifest.Origin{Kind: manifest.FromTree}
}

// placed takes where the tree lies.
func (l *Loop) placed(p Placed) {
	was := l.place
	l.place = p
	uncounted := l.brake.uncounted
	l.brake.uncounted = nil
	l.countCommits(uncounted)
	l.knownMount()
	if was != p {
		l.works.each(func(w *work) bool {
			l.knowOwn(w)
			if w.phase == toLook && w.doubtful() {
				w.mount.doubts = 0
				l.lookNow(w)
			}
			if w.phase == staged || w.phase == fetching || w.phase == waiting && l.leaving.has(w.path) {
				l.lookNow(w)
			}
			return true
		})
	}
	if p.Acting && !was.Acting {
		l.emit(Rescan{})
	}
	l.readyAll()
}

// knowOwn sees which of the commits that the log told of before the mount was known
// were seen on it first.
func (l *Loop) knowOwn(w *work) {
	for i, k := range w.chain {
		if l.shared() && k.from != "" && (k.from == l.place.Mount || k.self) {
			w.chain[i].own, w.chain[i].mount = true, true
		}
	}
}

// knownMount makes a joiner none, where another node of the mount knows what
// stands here.
func (l *Loop) knownMount() {
	if l.shared() && l.place.Known && l.state.Joiner {
		l.state.Joiner, l.state.Lost, l.state.Aside, l.refill = false, false, false, false
		l.joined = true
	}
}

// believe decides what is different on a shared disk, and tells whether nothing
// more is to be done about the verdict.
func (l *Loop) believe(w *work, v manifest.Verdict, a Ancestor, d manifest.Entry, c manifest.Node) bool {
	l.keepBeaten(w, d, c)
	if v == manifest.Nothing || v == manifest.Agree {
		w.noDoubt()
		return false
	}
	if l.rulings[w.path] != 0 {
		return false // a person has spoken
	}
	if v == manifest.Offer {
		return l.believeEdit(w, a, d, c)
	}
	if w.phase == presumed {
		l.lookNow(w)
		return true
	}
	if w.witnessed && v == manifest.Collide {
		l.keep(w, d, c.Revision, l.beatenBy(a))
	}
	mine := w.ownOnMount(c)
	if mine && w.onMount().doubtAt.IsZero() {
		w.onMount().doubtAt = l.now
	}
	if l.steward() && (!mine || l.now.Sub(w.onMount().doubtAt) >= repairAfter) {
		return false
	}
	l.doubt(w)
	return true
}

// believeEdit decides on what the disk has and the log has not. It is offered
// by who saw it being written, and else by the steward, or by who would have seen
// it had its root not been lost at the time (the steward's next scan may be far);
// and what the path has held before may be an old steward's late work.
func (l *Loop) believeEdit(w *work, a Ancestor, d manifest.Entry, c manifest.Node) bool {
	_, noted := l.notes[w.path]
	switch {
	case w.witnessed, w.wanted, w.needed, noted, l.state.Joiner:
		return false
	case !l.steward() && !w.unheard:
		l.leave(w, c)
		return true
	case l.place.Epoch <= 1 || d.SameContent(c.Entry) || !l.former(w, d):
		return false
	case !l.steward():
		l.leave(w, c)
		return true
	}
	if w.onMount().doubtAt.IsZero() {
		w.onMount().doubtAt = l.now
	}
	if l.now.Sub(w.onMount().doubtAt) < repairAfter {
		l.doubt(w)
		return true
	}
	l.follow(w, a, d, c, "content that the path had before came back after a change of stewards, and no node saw who wrote it")
	return true
}

// leave leaves an edit to the steward's scan, or to the node that saw it. The
// log's newest is agreed upon: this disk has held it.
func (l *Loop) leave(w *work, c manifest.Node) {
	if len(w.chain) > 0 {
		at := Ancestor{Entry: c.Entry, Revision: c.Revision, Author: c.Author, Stamp: Stamp{Racy: true}}
		l.agree(w, at, false)
	}
	w.pending = 0
	l.finish(w)
}

// beatenBy says why what was seen being written here loses against the log.
func (l *Loop) beatenBy(a Ancestor) string {
	if (l.state.Joiner || l.joined) && a.Entry.Absent() {
		return "it was written before this node had looked at what stands in this directory"
	}
	return "another node's change was committed first"
}

// doubtsBelow tells whether something below dir has not been seen as committed
// for long.
func (l *Loop) doubtsBelow(dir manifest.Path) (doubts bool) {
	l.works.under(dir, func(w *work) bool {
		doubts = w.mount != nil && w.mount.doubts > doubtsStuck
		return !doubts
	})
	return doubts
}

// doubt looks again a little later: what is there may not be seen yet, or be
// for the steward to bring about.
func (l *Loop) doubt(w *work) {
	w.why, w.unsent = "is not yet seen here as committed", false
	l.lookLater(w, backoff(doubtFirst, doubtMost, w.onMount().doubts))
	w.mount.doubts++
}

// keepBeaten keeps what this node offered and another one of the mount had
// written over before it was committed: nobody else may have it.
func (l *Loop) keepBeaten(w *work, d manifest.Entry, c manifest.Node) {
	if w.mount == nil || !w.mount.beaten.HasContent() || w.phase != settled {
		return
	}
	lost := w.mount.beaten
	w.mount.beaten = manifest.Entry{}
	if !lost.SameContent(d) && !lost.SameContent(c.Entry) {
		l.keep(w, lost, c.Revision, "another gateway wrote the same file on the mount at the same time")
	}
}

// keep has content kept aside that this node has seen, once.
func (l *Loop) keep(w *work, lost manifest.Entry, winner manifest.Revision, why string) {
	if lost.HasContent() && w.onMount().kept != lost.Digest {
		w.mount.kept = lost.Digest
		l.emit(Keep{Path: w.path, Aside: Aside{Lost: lost, Winner: winner, Why: why}})
	}
}

// ownOnMount tells whether the newest revision of the path was seen on this
// mount first. Its author had seen what the log said before, so that of one
// disk the newest says everything.
func (w *work) ownOnMount(c manifest.Node) bool {
	if len(w.chain) == 0 {
		return false
	}
	last := w.chain[len(w.chain)-1]
	return last.mount && (last.revision == c.Revision || last.entry.Absent() && c.Entry.Absent())
}

// settle is how long an absence has to last.
func (l *Loop) settle(w *work) time.Duration {
	if l.shared() && !w.witnessed {
		return unseenSettle * l.cfg.Settle
	}
	return l.cfg.Settle
}

// unknownHeld tells whether anything is held here because the cluster does not
// know it: to the other nodes of a mount it is unknown too.
func (l *Loop) unknownHeld() bool {
	if l.state.Joiner {
		return true
	}
	for _, n := range l.notes {
		if n.Guard == GuardJoiner || n.Guard == GuardRecords || n.Guard.unread() {
			return true
		}
	}
	return false
}
