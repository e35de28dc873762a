package raftstore

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// maxName bounds ids, names and addresses, in bytes.
const maxName = 255

// validName tells whether s may be stored as an id, a name or an address. The
// log carries valid UTF-8 only, and so must a snapshot.
func validName(s string) bool { return s != "" && validText(s) && !strings.ContainsRune(s, 0) }

func validText(s string) bool { return len(s) <= maxName && utf8.ValidString(s) }

// Members lists the members by id. Their Role is empty: roles are Raft's to
// tell (Store.Members fills them in).
func (m *Machine) Members() []cluster.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	members := make([]cluster.Member, 0, len(m.members))
	for _, p := range m.members {
		members = append(members, cluster.Member{
			ID: cluster.NodeID(p.GetId()), Name: p.GetName(), Address: p.GetAddress(), Store: p.GetStore(),
			Joined: p.GetJoinedNs(), Epoch: p.GetAddressEpoch(), Format: p.GetFormat(),
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

// FromMember turns a member into its message; the role is no part of it.
func FromMember(m cluster.Member) *pb.Member {
	return &pb.Member{
		Id: string(m.ID), Name: m.Name, Address: m.Address, Store: m.Store,
		JoinedNs: m.Joined, AddressEpoch: m.Epoch, Format: m.Format,
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
		return refuse(CodeRemoved, "node %s was removed from the cluster; empty its data directory and join it as a new node", m.GetId())
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
	joined := m.GetJoinedNs()
	if old, ok := s.members[m.GetId()]; ok {
		if m.GetAddressEpoch() < old.GetAddressEpoch() {
			return
		}
		joined = old.GetJoinedNs()
	} else if joined == 0 {
		joined = now
	}
	s.members[m.GetId()] = &pb.Member{
		Id: m.GetId(), Name: m.GetName(), Address: m.GetAddress(), Store: m.GetStore(),
		JoinedNs: joined, AddressEpoch: m.GetAddressEpoch(), Format: m.GetFormat(),
	}
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
	s.dropParts(func(p *partial) bool { return p.id.Node == id })
	s.removed[id] = true
	return done()
}
