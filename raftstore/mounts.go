package raftstore

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// mountsFormat: nodes say what they see of each other beside their trees, and
// mounts have stewards.
const mountsFormat feature = 2

// maxSeen bounds whom a node says to see, and to miss.
const maxSeen = 256

// places is what is known of the directories of one tree. Its values are
// replaced, never changed: frozen states share them.
type places struct {
	sightings map[string]*pb.PutSighting // by node
	mounts    []*pb.SnapshotMount        // by id
	epochs    uint64                     // the newest of any steward: it never falls, whatever becomes of mounts
}

func (p *places) clone() places {
	return places{sightings: maps.Clone(p.sightings), mounts: slices.Clone(p.mounts), epochs: p.epochs}
}

// Member returns a member's name; false where the id is none's.
func (m *Machine) Member(id cluster.NodeID) (name string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.members[string(id)]
	return p.GetName(), ok
}

// Removed tells whether an id was a member's that was removed.
func (m *Machine) Removed(id cluster.NodeID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.removed[string(id)]
}

// SharesKnown tells whether the log's format has sightings and stewards.
func (m *Machine) SharesKnown() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.has(mountsFormat)
}

// Shares returns what the log says of a tree's directories.
func (m *Machine) Shares(name string) cluster.Shares {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out cluster.Shares
	t, ok := m.trees[name]
	if !ok {
		return out
	}
	for _, node := range slices.Sorted(maps.Keys(t.places.sightings)) {
		out.Sightings = append(out.Sightings, toSighting(t.places.sightings[node]))
	}
	for _, mt := range t.places.mounts {
		members := make([]cluster.NodeID, len(mt.GetMembers()))
		for i, id := range mt.GetMembers() {
			members[i] = cluster.NodeID(id)
		}
		out.Mounts = append(out.Mounts, cluster.Mount{ID: mt.GetId(), Members: members, Steward: cluster.NodeID(mt.GetSteward()), Epoch: mt.GetEpoch()})
	}
	return out
}

func toSighting(p *pb.PutSighting) cluster.Sighting {
	return cluster.Sighting{
		Node: cluster.NodeID(p.GetNode()), Nonce: p.GetNonce(), Sees: toSeen(p.GetSees()), Misses: toSeen(p.GetMisses()),
		Storage: p.GetStorage(), Joiner: p.GetJoiner(), Mount: p.GetMount(),
	}
}

func toSeen(in []*pb.SeenNonce) (out []cluster.Seen) {
	for _, s := range in {
		out = append(out, cluster.Seen{Node: cluster.NodeID(s.GetNode()), Nonce: s.GetNonce()})
	}
	return out
}

// FromSighting turns a sighting of a tree's directory into its command.
func FromSighting(tree string, g cluster.Sighting) *pb.PutSighting {
	seen := func(in []cluster.Seen) (out []*pb.SeenNonce) {
		for _, s := range in {
			out = append(out, &pb.SeenNonce{Node: string(s.Node), Nonce: s.Nonce})
		}
		return out
	}
	return &pb.PutSighting{
		Node: string(g.Node), Tree: tree, Nonce: g.Nonce, Sees: seen(g.Sees), Misses: seen(g.Misses),
		Storage: g.Storage, Joiner: g.Joiner, Mount: g.Mount,
	}
}

// putSighting takes what a node says of a tree's directory, and finds out who
// shares one.
func (s *state) putSighting(p *pb.PutSighting) *pb.Outcome {
	if o := s.sightingFits(p); o != nil {
		return o
	}
	t := s.trees[p.GetTree()]
	next := t.places.clone()
	if next.sightings == nil {
		next.sightings = map[string]*pb.PutSighting{}
	}
	if p.GetNonce() == "" {
		delete(next.sightings, p.GetNode())
	} else {
		next.sightings[p.GetNode()] = p
	}
	next.regroup(p.GetNode())
	t.places = next
	return done()
}

// sightingFits returns nil for a sighting that can be taken.
func (s *state) sightingFits(p *pb.PutSighting) *pb.Outcome {
	badly := func(list []*pb.SeenNonce) bool {
		return len(list) > maxSeen || slices.ContainsFunc(list, func(n *pb.SeenNonce) bool { return !validName(n.GetNode()) || !validName(n.GetNonce()) })
	}
	switch {
	case !s.has(mountsFormat):
		return refuse(CodeFormat, "the log's format is too old for shared mounts: upgrade the members that `gatesync status` names")
	case s.members[p.GetNode()] == nil:
		return refuse(CodeNotMember, "node %q is not, or no longer, a member of this cluster", p.GetNode())
	case s.trees[p.GetTree()] == nil:
		return refuse(CodeUnknownTree, "the cluster has no tree %q; see gatesync status for its trees", p.GetTree())
	case !validText(p.GetNonce()) || !validName(p.GetMount()) || len(p.GetMount()) > 64 || !validText(p.GetStorage()) || badly(p.GetSees()) || badly(p.GetMisses()):
		return refuse(CodeMalformed, "a malformed sighting of tree %q", p.GetTree())
	}
	return nil
}

// putSteward makes a member of a mount its steward. Who is late names an epoch
// that is over.
func (s *state) putSteward(p *pb.PutSteward) *pb.Outcome {
	t := s.trees[p.GetTree()]
	if !s.has(mountsFormat) || t == nil {
		return refuse(CodeUnknownTree, "the cluster has no tree %q; see gatesync status for its trees", p.GetTree())
	}
	at := slices.IndexFunc(t.places.mounts, func(m *pb.SnapshotMount) bool { return m.GetId() == p.GetMount() })
	if at < 0 {
		return refuse(CodeMount, "tree %q has no mount %s", p.GetTree(), p.GetMount())
	}
	old := t.places.mounts[at]
	if old.GetEpoch() != p.GetEpoch() || !slices.Contains(old.GetMembers(), p.GetNode()) {
		return refuse(CodeMount, "mount %s of tree %q has epoch %d and the members %v", old.GetId(), p.GetTree(), old.GetEpoch(), old.GetMembers())
	}
	next := t.places.clone()
	next.epochs++
	next.mounts[at] = &pb.SnapshotMount{Tree: p.GetTree(), Id: old.GetId(), Members: old.GetMembers(), Steward: p.GetNode(), Epoch: next.epochs}
	t.places = next
	return done()
}

// leave forgets what a member said of its directories, and what it was to do.
func (s *state) leave(node string) {
	s.targets.leave(node)
	for _, t := range s.trees {
		if t.places.sightings[node] == nil {
			continue
		}
		next := t.places.clone()
		delete(next.sightings, node)
		next.regroup("")
		t.places = next
	}
}

// groups lists who has one directory with whom: each group is connected by
// pairs that see each other. Who sees nobody, and need not be known by others,
// is in none.
func (p *places) groups() (out [][]string) {
	nodes := slices.Sorted(maps.Keys(p.sightings))
	in := map[string]bool{}
	for _, first := range nodes {
		if in[first] {
			continue
		}
		group := []string{first}
		in[first] = true
		for i := 0; i < len(group); i++ {
			a := toSighting(p.sightings[group[i]])
			for _, other := range nodes {
				if !in[other] && cluster.Mutual(a, toSighting(p.sightings[other])) {
					in[other] = true
					group = append(group, other)
				}
			}
		}
		if g := p.sightings[first]; len(group) > 1 || len(g.GetSees()) > 0 || g.GetStorage() == "direct" {
			slices.Sort(group)
			out = append(out, group)
		}
	}
	return out
}

// regroup makes mounts of the groups. A mount goes on, with its id and its
// epoch, in the group that has most of its members; of two that have as many, in
// its steward's, else in the group of whoever spoke last (he lives). All else is
// new.
func (p *places) regroup(spoke string) {
	type pair struct {
		group, old, shared int
		steward, spoke     bool
	}
	groups := p.groups()
	var pairs []pair
	for g, group := range groups {
		for o, old := range p.mounts {
			shared := 0
			for _, id := range group {
				if slices.Contains(old.GetMembers(), id) {
					shared++
				}
			}
			if shared > 0 {
				pairs = append(pairs, pair{g, o, shared, slices.Contains(group, old.GetSteward()), slices.Contains(group, spoke)})
			}
		}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int {
		switch {
		case a.shared != b.shared:
			return cmp.Compare(b.shared, a.shared)
		case a.steward != b.steward && a.steward:
			return -1
		case a.steward != b.steward:
			return 1
		case a.spoke != b.spoke && a.spoke:
			return -1
		case a.spoke != b.spoke:
			return 1
		}
		x, y := p.mounts[a.old], p.mounts[b.old]
		return cmp.Or(cmp.Compare(y.GetEpoch(), x.GetEpoch()), cmp.Compare(x.GetId(), y.GetId()), cmp.Compare(a.group, b.group))
	})
	made := make([]*pb.SnapshotMount, len(groups))
	used := map[int]bool{}
	for _, c := range pairs {
		if made[c.group] != nil || used[c.old] {
			continue
		}
		used[c.old] = true
		old := p.mounts[c.old]
		m := &pb.SnapshotMount{Tree: old.GetTree(), Id: old.GetId(), Members: groups[c.group], Steward: old.GetSteward(), Epoch: old.GetEpoch()}
		if !slices.Contains(m.GetMembers(), m.GetSteward()) {
			m.Steward = ""
		}
		made[c.group] = m
	}
	ids := map[string]bool{}
	for _, m := range made {
		ids[m.GetId()] = true // of those that are nil yet "", which is no id
	}
	for g, group := range groups {
		if made[g] != nil {
			continue
		}
		first := p.sightings[group[0]]
		id := first.GetMount()
		for n := 1; ids[id]; n++ { // that one has gone on with others
			id = fmt.Sprintf("%s.%d", first.GetMount(), n)
		}
		ids[id] = true
		made[g] = &pb.SnapshotMount{Tree: first.GetTree(), Id: id, Members: group, Epoch: p.epochs}
	}
	slices.SortFunc(made, func(a, b *pb.SnapshotMount) int { return cmp.Compare(a.GetId(), b.GetId()) })
	p.mounts = made
}

// writePlaces writes what is known of the trees' directories.
func (f *Frozen) writePlaces(w snapshotWriter) {
	for _, name := range slices.Sorted(maps.Keys(f.trees)) {
		p := f.trees[name].places
		for _, node := range slices.Sorted(maps.Keys(p.sightings)) {
			w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Sighting{Sighting: p.sightings[node]}})
		}
		for _, m := range p.mounts {
			w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Mount{Mount: m}})
		}
	}
}

func (r *restoring) addSighting(p *pb.PutSighting) error {
	if o := r.sightingFits(p); o != nil {
		return errors.New(o.GetMessage())
	}
	pl := &r.trees[p.GetTree()].places
	if pl.sightings == nil {
		pl.sightings = map[string]*pb.PutSighting{}
	}
	if p.GetNonce() == "" || pl.sightings[p.GetNode()] != nil {
		return errors.New("a malformed sighting")
	}
	pl.sightings[p.GetNode()] = p
	return nil
}

// addMount relies on the order: sightings before mounts, mounts by id.
func (r *restoring) addMount(m *pb.SnapshotMount) error {
	t := r.trees[m.GetTree()]
	if !r.has(mountsFormat) || t == nil || !validName(m.GetId()) || !validText(m.GetSteward()) || len(m.GetMembers()) == 0 {
		return errors.New("a malformed mount")
	}
	for _, id := range m.GetMembers() {
		if t.places.sightings[id] == nil {
			return errors.New("a mount with a member that says nothing of it")
		}
	}
	if m.GetSteward() != "" && !slices.Contains(m.GetMembers(), m.GetSteward()) {
		return errors.New("a mount whose steward is not on it")
	}
	if n := len(t.places.mounts); n > 0 && t.places.mounts[n-1].GetId() >= m.GetId() {
		return errors.New("mounts out of order")
	}
	if m.GetEpoch() > t.places.epochs {
		return errors.New("a mount of an epoch that has not begun")
	}
	t.places.mounts = append(t.places.mounts, m)
	return nil
}
