package syncer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/gatesync/gatesync/cluster"
)

// The settings of a tree's storage.
const (
	StorageAuto   = "auto"
	StorageLocal  = "local"
	StorageDirect = "direct"
)

// Place is where a tree lies, as far as is known.
type Place struct {
	// Unknown: it may be shared with nodes that have yet to say so, or is not as
	// the settings say: nothing is offered or materialized. Why says what is
	// waited for.
	Unknown bool
	Why     string
	// Mount is the id of the directory that other nodes have too; "": it is this
	// node's own.
	Mount   string
	Steward cluster.NodeID // of the mount, "" where none is named just now
	Epoch   uint64         // of the steward
	// Known: another node of the mount knows what stands there: nothing is a
	// joiner's.
	Known bool
}

// shore is what a node knows when it finds out where its tree lies.
type shore struct {
	self    cluster.NodeID
	storage string // of the settings
	joiner  bool
	mount   string // the id that it would give a new mount
	nonce   string // its own, beside the tree
	// found are the nonces of other members that were read beside the tree; missed
	// those that were looked for after their nodes said to see this one's.
	found, missed map[cluster.NodeID]string
	// checked are those, with their nonces, after whose word that they do not find
	// this node's it was seen to stand there; nil: all.
	checked map[cluster.NodeID]string
	log     cluster.Shares
	behind  bool // the log is still read: it may yet make a member of whoever's nonce was found
	member  func(cluster.NodeID) bool
	name    func(cluster.NodeID) string
}

// next is what follows: where the tree lies, what to tell the log (nil:
// nothing), and whose nonces to look for.
type next struct {
	place Place
	say   *cluster.Sighting
	look  bool
	wait  bool // for the log to be read
}

// decide is pure. A pair of nodes has one directory when each reads the nonce
// that the other announced last; it has not when one that was looked for is
// not there. Until that is known the one that has seen something waits.
func (s shore) decide() next {
	var n next
	mine, said := s.log.Of(s.self)
	var open, mates []cluster.NodeID
	claimed, known := false, false
	for _, id := range s.others() {
		theirs, spoke := s.log.Of(id)
		read, reads := s.found[id]
		sees := spoke && theirs.SeesNonce(cluster.Seen{Node: s.self, Nonce: s.nonce})
		claims := spoke && claims(theirs, s.self)
		claimed = claimed || claims
		there := reads && spoke && read == theirs.Nonce
		missed := claims && !there && s.missed[id] == theirs.Nonce
		n.look = n.look || claims && !there && !missed
		switch {
		case sees && there:
			mates = append(mates, id)
			known = known || !theirs.Joiner
		case sees && missed, spoke && theirs.MissesNonce(cluster.Seen{Node: s.self, Nonce: s.nonce}) && s.sureOf(theirs):
		case reads || sees || claims && !missed:
			open = append(open, id)
		}
	}
	want := s.sighting()
	if said || claimed || len(want.Sees) > 0 || s.storage == StorageDirect {
		if !same(want, mine) {
			n.say = &want
		}
	}
	mount, on := s.log.MountOf(s.self)
	on = on && said && mine.Nonce == s.nonce
	direct := Place{Mount: mount.ID, Steward: mount.Steward, Epoch: mount.Epoch, Known: known}
	switch {
	case s.behind && s.stranger():
		n.wait = true
		n.place = unknown("another node has left its nonce beside the tree: the log is still read, which may know it")
	case s.storage == StorageLocal && len(mates) > 0:
		n.place = unknown("storage is local, but %s has the same directory: set storage to auto on both, or choose another directory", s.names(mates))
	case on && len(mount.Members) > 1 && len(mates) > 0:
		n.place = direct
	case len(mates) > 0:
		n.place = unknown("it is shared with %s: the log has yet to say so", s.names(mates))
	case on && len(open) > 0 && mount.Steward == s.self:
		n.place = direct // those who have not answered are dead
	case len(open) > 0:
		n.place = unknown("waiting for %s to say whether it has the same directory", s.names(open))
	case s.storage == StorageDirect:
		n.place = s.alone(mount, on, direct)
	case n.say != nil && said && len(mine.Sees) > 0:
		n.place = unknown("the log has yet to say that it is not shared any more")
	}
	return n
}

// claims tells whether a node says to see a nonce of id's, be it an old one: it
// waits for id to say whether it sees its own.
func claims(g cluster.Sighting, id cluster.NodeID) bool {
	return slices.ContainsFunc(g.Sees, func(x cluster.Seen) bool { return x.Node == id })
}

// alone is for a tree that is to be shared and that nobody else sees: fine for
// the first of several, not where another one waits likewise.
func (s shore) alone(mount cluster.Mount, on bool, direct Place) Place {
	var others []cluster.NodeID
	for _, g := range s.log.Sightings {
		if g.Node == s.self || g.Storage != StorageDirect || !s.member(g.Node) {
			continue
		}
		if m, ok := s.log.MountOf(g.Node); ok && len(m.Members) == 1 {
			others = append(others, g.Node)
		}
	}
	switch {
	case len(others) > 0:
		return unknown("storage is direct, and so it is on %s, which does not see this directory: mount the same one on both, or set storage to auto", s.names(others))
	case !on:
		return unknown("storage is direct: the log has yet to say who is here")
	}
	return direct
}

func unknown(format string, args ...any) Place {
	return Place{Unknown: true, Why: fmt.Sprintf(format, args...)}
}

// others lists the members that have to do with this directory, sorted.
func (s shore) others() (out []cluster.NodeID) {
	for id := range s.found {
		out = append(out, id)
	}
	for _, g := range s.log.Sightings {
		out = append(out, g.Node)
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(id cluster.NodeID) bool { return id == s.self || !s.member(id) })
}

// sureOf tells whether a node that does not find this one's nonce has another
// directory: the nonce is there.
func (s shore) sureOf(theirs cluster.Sighting) bool {
	return s.checked == nil || s.checked[theirs.Node] == theirs.Nonce
}

// stranger tells whether a nonce beside the tree is of no member that is known
// here.
func (s shore) stranger() bool {
	for id := range s.found {
		if !s.member(id) {
			return true
		}
	}
	return false
}

// sighting is what this node has to say.
func (s shore) sighting() cluster.Sighting {
	return cluster.Sighting{
		Node: s.self, Nonce: s.nonce, Sees: s.seen(s.found), Misses: s.seen(s.missed), Storage: s.storage, Joiner: s.joiner, Mount: s.mount,
	}
}

func (s shore) seen(nonces map[cluster.NodeID]string) (out []cluster.Seen) {
	for id, nonce := range nonces {
		if s.member(id) {
			out = append(out, cluster.Seen{Node: id, Nonce: nonce})
		}
	}
	slices.SortFunc(out, func(a, b cluster.Seen) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// same compares two sightings but for the id that a new mount would get.
func same(a, b cluster.Sighting) bool {
	return a.Node == b.Node && a.Nonce == b.Nonce && a.Storage == b.Storage && a.Joiner == b.Joiner &&
		slices.Equal(a.Sees, b.Sees) && slices.Equal(a.Misses, b.Misses)
}

func (s shore) names(ids []cluster.NodeID) string {
	var out []string
	for _, id := range ids {
		out = append(out, s.name(id))
	}
	return strings.Join(out, ", ")
}
