package cluster

import "slices"

// Seen is a nonce that a node has put beside its tree's directory.
type Seen struct {
	Node  NodeID
	Nonce string
}

// Sighting is what a node says of the directory of one of its trees: its own
// nonce there, and whose else it reads through its own path.
type Sighting struct {
	Node    NodeID
	Nonce   string
	Sees    []Seen // sorted by node
	Misses  []Seen // nonces of those who see this one, looked for and not found; sorted by node
	Storage string // as its settings say
	Joiner  bool   // something stands there that the cluster does not know and that is held
	Mount   string // the id, should this make a new mount
}

// SeesNonce tells whether s says that it reads a nonce.
func (s Sighting) SeesNonce(n Seen) bool { return slices.Contains(s.Sees, n) }

// MissesNonce tells whether s says that it looked for a nonce and did not find it.
func (s Sighting) MissesNonce(n Seen) bool { return slices.Contains(s.Misses, n) }

// Mount is one directory that several nodes have as the same tree.
type Mount struct {
	ID      string
	Members []NodeID // sorted
	Steward NodeID   // who materializes; "" for a moment
	Epoch   uint64   // of the steward: it grows with each change
}

// Shares is what the log says of the directories of one tree.
type Shares struct {
	Sightings []Sighting // sorted by node
	Mounts    []Mount    // sorted by id
}

// Of returns a node's sighting; false where it said nothing.
func (s Shares) Of(id NodeID) (Sighting, bool) {
	for _, g := range s.Sightings {
		if g.Node == id {
			return g, true
		}
	}
	return Sighting{}, false
}

// MountOf returns the mount that a node is on; false: none.
func (s Shares) MountOf(id NodeID) (Mount, bool) {
	for _, m := range s.Mounts {
		if slices.Contains(m.Members, id) {
			return m, true
		}
	}
	return Mount{}, false
}

// Mutual tells whether a and b each read the other's present nonce: they have
// one and the same directory.
func Mutual(a, b Sighting) bool {
	return a.SeesNonce(Seen{b.Node, b.Nonce}) && b.SeesNonce(Seen{a.Node, a.Nonce})
}

// NewNonce makes what a node puts beside its tree: nobody else has it.
func NewNonce() string { return random(16) }

// NewMountID makes a mount's id: "m-" and 16 hex digits.
func NewMountID() string { return "m-" + random(8) }
