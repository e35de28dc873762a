package raftstore

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// maxName bounds ids, names and addresses, in bytes.
const maxName = 255

// maxMembers bounds the members: far more than Raft and its followers serve.
const maxMembers = 4096

// validName tells whether s may be stored as an id, a name or an address. The
// log carries valid UTF-8 only, and so must a snapshot.
func validName(s string) bool { return s != "" && validText(s) }

// validText tells whether s is short and plain: what one member calls itself is
// printed on the terminals of all.
func validText(s string) bool {
	return len(s) <= maxName && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// Members lists the members by id. Roles are Raft's to tell (Store.Members fills
// them in): here only followers have theirs.
func (m *Machine) Members() []cluster.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	members := make([]cluster.Member, 0, len(m.members))
	for _, p := range m.members {
		members = append(members, cluster.Member{
			ID: cluster.NodeID(p.GetId()), Name: p.GetName(), Address: p.GetAddress(), Store: p.GetStore(),
			Joined: p.GetJoinedNs(), Epoch: p.GetAddressEpoch(), Format: p.GetFormat(), Wish: cluster.Role(p.GetWish()), Witness: p.GetWitness(),
			Role: roleIn(p),
		})
	}
	slices.SortFunc(members, func(a, b cluster.Member) int { return cmp.Compare(a.ID, b.ID) })
	return members
}

// Voters lists the ids that vote at the machine's place in the log, sorted.
func (m *Machine) Voters() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.voters)
}

// SetVoters takes over the voters of a configuration entry of the log. It
// comes in the log's order, between the commands before and after the entry.
func (m *Machine) SetVoters(ids []string) {
	sorted := slices.Clone(ids)
	slices.Sort(sorted)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.voters = slices.Compact(sorted)
}

// FromMember turns a member into its message. Of the role only a follower's is a
// part of it, and the operator's wish only SetRole can change.
func FromMember(m cluster.Member) *pb.Member {
	return &pb.Member{
		Id: string(m.ID), Name: m.Name, Address: m.Address, Store: m.Store,
		JoinedNs: m.Joined, AddressEpoch: m.Epoch, Format: m.Format, Witness: m.Witness, Follower: m.Role == cluster.Follower,
	}
}

func (s *state) putMember(p *pb.PutMember, now int64) *pb.Outcome {
	if o := s.admissible(p.GetMember()); o != nil {
		return o
	}
	s.setMember(p.GetMember(), now)
	return done()
}

// admissible returns nil where m may be a member, else the refusal.
func (s *state) admissible(m *pb.Member) *pb.Outcome {
	if !validName(m.GetId()) || !validName(m.GetName()) || !validText(m.GetAddress()) || !validText(m.GetStore()) {
		return refuse(CodeMalformed, "a member needs an id and a name of at most %d bytes", maxName)
	}
	if knownTo(m) < s.format {
		return refuse(CodeFormat, "the cluster's log is of format %d, %s understands formats up to %d; upgrade that node", s.format, m.GetName(), knownTo(m))
	}
	if s.removed[m.GetId()] {
		return refuse(CodeRemoved, "node %s was removed from the cluster; "+cluster.JoinAgain, m.GetId())
	}
	if _, ok := s.members[m.GetId()]; !ok && len(s.members) >= maxMembers {
		return refuse(CodeTooLarge, "the cluster has %d members already; remove some first", len(s.members))
	}
	for _, other := range s.members {
		if other.GetName() == m.GetName() && other.GetId() != m.GetId() {
			return refuse(CodeNameTaken, "the name %q belongs to node %s; choose another name, or remove that node first", m.GetName(), other.GetId())
		}
	}
	return nil
}

// setMember adds or changes an admissible member. An older announcement of
// the address is ignored, whatever else it says.
func (s *state) setMember(m *pb.Member, now int64) {
	joined, wish, follower := m.GetJoinedNs(), "", s.follows(m)
	if old, ok := s.members[m.GetId()]; ok {
		if m.GetAddressEpoch() < old.GetAddressEpoch() {
			return
		}
		joined, wish, follower = old.GetJoinedNs(), old.GetWish(), old.GetFollower()
	} else if joined == 0 {
		joined = now
	}
	s.members[m.GetId()] = &pb.Member{
		Id: m.GetId(), Name: m.GetName(), Address: m.GetAddress(), Store: m.GetStore(),
		JoinedNs: joined, AddressEpoch: m.GetAddressEpoch(), Format: m.GetFormat(), Wish: wish, Witness: m.GetWitness(), Follower: follower,
	}
}

// setRole records which role an operator wants a member to have. Raft's own
// configuration follows, by the leader's hand.
func (s *state) setRole(r *pb.SetRole) *pb.Outcome {
	m, ok := s.members[r.GetId()]
	if !ok {
		return refuse(CodeNotMember, "%q is no member of this cluster", r.GetId())
	}
	if changed := s.setFollower(m, cluster.Role(r.GetRole())); changed != nil && (validWish(r.GetRole()) || changed.Follower) {
		s.members[r.GetId()] = changed
		return done()
	}
	if !validWish(r.GetRole()) {
		return refuse(CodeMalformed, "%q is no role", r.GetRole())
	}
	changed := proto.Clone(m).(*pb.Member) // a frozen snapshot may hold m
	changed.Wish = r.GetRole()
	s.members[r.GetId()] = changed
	return done()
}

func validWish(role string) bool {
	switch cluster.Role(role) {
	case "", cluster.Voter, cluster.NonVoter:
		return true
	}
	return false
}

// removeMember forgets a member and everything that was kept for it. Its id
// is remembered: a late PutMember must not bring it back.
func (s *state) removeMember(r *pb.RemoveMember) *pb.Outcome {
	id := r.GetId()
	if _, ok := s.members[id]; !ok {
		if s.removed[id] {
			return done()
		}
		return refuse(CodeNotMember, "%q is no member of this cluster", id)
	}
	delete(s.members, id)
	delete(s.sessions, id)
	s.leave(id)
	s.dropParts(func(p *partial) bool { return p.id.Node == id })
	s.removed[id] = true
	return done()
}
