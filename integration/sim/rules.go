package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/syncer"
)

// rules watches what one node's loop asks for, against what its executor and
// its gateway really did.
type rules struct {
	by     map[manifest.Path]map[written]bool // what the gateway left at a path, ever …
	lately map[manifest.Path]map[written]bool // … and since a daemon last put something there
	gone   map[manifest.Path]time.Time        // the first of the sightings as absent, since it was last seen
	before map[manifest.Path]bool             // stood there when the node joined, untouched since
	joiner bool                               // in this life, at first: history says nothing to it
	spoken bool                               // an operator has approved something
	shut   map[manifest.Path]bool             // the newest work there is of a time when the tree took no edits

	// On a mount, where others' daemons and gateways are at work, too.
	saw    map[manifest.Path]bool             // the last look saw a gateway's work
	events map[manifest.Path]int              // of this machine's gateway, on their way to the daemon …
	unread map[manifest.Path]bool             // … or there, and no look since has seen what they are of
	over   map[manifest.Path]map[written]bool // what a late steward wrote over that: nobody can tell it from what they are of
}

// written is an entry without its times.
type written struct {
	kind   manifest.Kind
	mode   uint32
	digest manifest.Digest
}

func writtenOf(e manifest.Entry) written { return written{e.Kind, e.Mode, e.Digest} }

func newRules() rules {
	return rules{by: map[manifest.Path]map[written]bool{}, lately: map[manifest.Path]map[written]bool{}, gone: map[manifest.Path]time.Time{}, before: map[manifest.Path]bool{}, shut: map[manifest.Path]bool{},
		saw: map[manifest.Path]bool{}, events: map[manifest.Path]int{}, unread: map[manifest.Path]bool{}, over: map[manifest.Path]map[written]bool{}}
}

// started forgets what an earlier life has seen, but for what it has noted.
func (r *rules) started(joiner bool, notes map[manifest.Path]syncer.Note) {
	r.joiner = joiner
	clear(r.events)
	clear(r.unread)
	maps.DeleteFunc(r.gone, func(p manifest.Path, _ time.Time) bool { _, noted := notes[p]; return !noted })
}

func (r *rules) wrote(p manifest.Path, e manifest.Entry) {
	note(r.by, p, writtenOf(e))
	note(r.lately, p, writtenOf(e))
	delete(r.before, p)
}

// told notes that an event of this machine's gateway is on its way to the daemon,
// or has come.
func (r *rules) told(paths []manifest.Path, more int) {
	for _, p := range paths {
		r.events[p] += more
		r.unread[p] = true
	}
}

// lateOver notes that a late steward has put something in the place of what a
// gateway has left and its daemon not yet seen.
func (r *rules) lateOver(p manifest.Path, w written) {
	if r.unread[p] {
		note(r.over, p, w)
	}
}

func note(by map[manifest.Path]map[written]bool, p manifest.Path, w written) {
	if by[p] == nil {
		by[p] = map[written]bool{}
	}
	by[p][w] = true
}

// placed notes that this daemon has made p what it is: what stood there before is
// not seen any more. On a mount a look may be older, and an offer wait meanwhile.
func (r *rules) placed(n *node, p manifest.Path) {
	if n.on == nil {
		delete(r.lately, p)
	}
}

// joins notes what stands on a joiner's disk.
func (r *rules) joins(d *disk) {
	for p, i := range d.at {
		r.before[p] = i.kind != manifest.Dir
	}
}

// adrift says that a power cut has made the disk what it is: nobody can tell
// that from a gateway's work.
func (r *rules) adrift(d *disk) {
	for p, i := range d.at {
		w := writtenOf(i.entry())
		again := i.torn || r.by[p][w] || !d.placed[p][w]
		note(r.by, p, w)
		if again { // no daemon's work that merely was not recorded
			note(r.lately, p, w)
		}
		delete(r.before, p)
	}
}

func (r *rules) ruled(*node, syncer.Verb, []manifest.Path) { r.spoken = true }

func (r *rules) looked(n *node, obs syncer.Observation) {
	if (obs.Sight == syncer.Seen || obs.Sight == syncer.Gone) && r.events[obs.Path] == 0 {
		delete(r.unread, obs.Path)
	}
	switch obs.Sight {
	case syncer.Seen:
		delete(r.gone, obs.Path)
	case syncer.Gone:
		if r.gone[obs.Path].IsZero() {
			r.gone[obs.Path] = n.w.now
		}
	}
}

// offer: a node offers only what its gateway did, and a deletion only once it
// was seen twice, a settling time apart.
func (r *rules) offer(n *node, e syncer.Propose) {
	n.w.oracle.brake.offered(n.w.now, n.id, e.Changes)
	deleted, added := 0, false
	for _, c := range e.Changes {
		n.w.trace("node %d offers %q as %s", n.index, c.Path, c.New)
		seen := r.gone[c.Path]
		if old := n.committed(c.Path); c.New.Absent() && old.IsLeaf() {
			deleted++
		}
		added = added || c.New.IsLeaf()
		switch {
		case !r.spoken && n.edits != manifest.EditsOffered:
			n.w.fail("node %d offers %q as %s, and its tree takes no edits", n.index, c.Path, c.New)
		case !r.spoken && r.shut[c.Path]:
			n.w.fail("node %d offers %q as %s, which is of a time when its tree took no edits", n.index, c.Path, c.New)
		case c.New.IsDir(), r.spoken:
		case r.before[c.Path] && !n.adopt && !c.New.Absent():
			n.w.fail("NoSurpriseDelete: node %d offers %q, which stood there before it joined", n.index, c.Path)
		case n.on != nil && n.disk.placed[c.Path][writtenOf(c.New)] && n.w.oracle.view().Manifest.Entry(c.Path).Same(c.New): // its steward's work, seen by the next one: in force already
		case n.on != nil && !c.New.Absent() && !r.saw[c.Path] && !n.excused(c):
			n.w.fail("NoEcho: node %d offers %q as %s, which a daemon has put there", n.index, c.Path, c.New)
		case n.forgotten() && n.disk.placed[c.Path][writtenOf(c.New)]: // its own, of which history says nothing any more
		case n.on == nil && !c.New.Absent() && !r.lately[c.Path][writtenOf(c.New)]:
			n.w.fail("NoEcho: node %d offers %q as %s, which its gateway never wrote", n.index, c.Path, c.New)
		case c.New.Absent() && (seen.IsZero() || n.w.now.Sub(seen) < time.Second):
			n.w.fail("NoSurpriseDelete: node %d offers the deletion of %q, first seen %v ago", n.index, c.Path, n.w.now.Sub(seen))
		}
	}
	if n.on != nil && n.w.now.Sub(n.w.oracle.deleted) < 2*time.Second {
		return // another node of the mount has deleted the rest a moment ago
	}
	if deleted > 1 && !added && n.disk.bare() && deleted == files(n.machine) && deleted == files(n.w.oracle.machine) && !r.spoken {
		n.w.fail("NoSurpriseDelete: node %d empties the tree", n.index)
	}
}

// excused tells whether what is offered is what a late steward wrote, and the
// guarantees say that it may be: over what a gateway has left and nobody has read,
// or with the newest content, and a mode of before.
func (n *node) excused(c manifest.Change) bool {
	w := writtenOf(c.New)
	return n.rules.over[c.Path][w] || n.disk.late[c.Path][w] && n.committed(c.Path).SameContent(c.New)
}

func (n *node) committed(p manifest.Path) manifest.Entry {
	v, _ := n.machine.View(treeName)
	return v.Manifest.Entry(p)
}

// files counts what is committed, as a machine knows it.
func files(m *raftstore.Machine) (files int) {
	v, _ := m.View(treeName)
	v.Manifest.All(func(_ manifest.Path, node manifest.Node) bool {
		if !node.Entry.IsDir() {
			files++
		}
		return true
	})
	return files
}

// forgotten tells whether history no longer reaches back to what the disk has
// followed: what was placed and not recorded since cannot be told from an edit.
func (n *node) forgotten() bool { return n.w.oracle.machine.Oldest() > n.saved.followed+1 }

// step: nothing is materialized before the log has reached what this disk
// agreed on, and nothing goes back.
func (r *rules) step(n *node, s syncer.Step) {
	a := n.saved.ancestors[s.Path]
	switch {
	case n.reader.at < a.Revision, n.reader.at < n.saved.followed:
		n.w.fail("node %d materializes %q at revision %d; its disk has followed %d", n.index, s.Path, n.reader.at, max(a.Revision, n.saved.followed))
	case s.New.Revision < a.Revision:
		n.w.fail("node %d takes %q back from revision %d to %d", n.index, s.Path, a.Revision, s.New.Revision)
	}
}

// loses: whatever is kept aside was an edit of this node's gateway, and lost
// to somebody else's.
func (r *rules) loses(n *node, s syncer.Step) {
	lost := s.Aside.Lost
	switch {
	case r.spoken, r.joiner, n.forgotten():
	case n.on != nil && n.w.oracle.hasHeld(s.Path, lost): // a steward's work that came late, or that a gateway's was faster than
	case n.on != nil && !r.saw[s.Path], !r.by[s.Path][writtenOf(lost)]:
		n.w.fail("node %d keeps %s of %q aside, which its gateway never wrote", n.index, lost, s.Path)
	case s.Aside.Why == "another node's change was committed first" && s.New.Author == n.id && n.life == 1 && !s.New.Entry.Absent() && n.committed(s.Path).Same(s.New.Entry):
		n.w.fail("node %d has a conflict with itself over %q", n.index, s.Path)
	}
}

// displaces: content that a step takes from the disk is in the log's history,
// or kept aside.
func (r *rules) displaces(n *node, s syncer.Step, i *inode) {
	if i == nil || i.kind != manifest.File || s.Op == syncer.SetMode || i.text == "" {
		return
	}
	if i.writers > 0 && !n.leases {
		return // the quarantine's
	}
	if f := n.w.ledger.fates[i.text]; f != nil && slices.Contains(n.w.oracle.retained(), i.entry().Digest) {
		f.since = 0 // history has it now, and may be trimmed later
	}
	if f, a := n.w.ledger.fates[i.text], n.saved.ancestors[s.Path]; f != nil && a.Entry.SameContent(i.entry()) {
		f.since = min(f.since, a.Revision-1) // written back, which is no edit: the log has held it since then
	}
	if !n.w.oracle.hasHeld(s.Path, i.entry()) && !n.keepsAside(i.entry().Digest) {
		n.w.fail("NoLoss: node %d takes %q away from %q and keeps it nowhere", n.index, i.text, s.Path)
	}
	if s.Op == syncer.PutFile && manifest.DigestOf([]byte(n.store.blobs[s.New.Entry.Digest])) != s.New.Entry.Digest {
		n.w.fail("NoTornFile: node %d shows %q in %q", n.index, n.store.blobs[s.New.Entry.Digest], s.Path)
	}
}
