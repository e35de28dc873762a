package raftstore

import (
	"google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// followersFormat: members may be followers. Before it the machine does what it
// did before it knew of any: it drops the word.
const followersFormat feature = 2

// FollowersFormat is the format of the log that knows of followers.
const FollowersFormat = uint32(followersFormat)

// roleIn is a member's role where the log alone says it; the others' are Raft's to tell.
func roleIn(m *pb.Member) cluster.Role {
	if m.GetFollower() {
		return cluster.Follower
	}
	return ""
}

// follows tells whether a member comes in as a follower.
func (s *state) follows(m *pb.Member) bool { return s.has(followersFormat) && m.GetFollower() }

// setFollower is setRole where a follower is concerned: SetRole makes one of a
// member that has no vote, or a member of Raft of a follower, whatever else it
// says. It returns nil where none is.
func (s *state) setFollower(m *pb.Member, role cluster.Role) *pb.Member {
	if !s.has(followersFormat) || !m.GetFollower() && role != cluster.Follower {
		return nil
	}
	changed := proto.Clone(m).(*pb.Member) // a frozen snapshot may hold m
	changed.Follower, changed.Wish = role == cluster.Follower, string(role)
	if changed.Follower {
		changed.Wish = ""
	}
	return changed
}

// promoted makes a member of Raft of who begins a life of the cluster alone.
func (m *Machine) promoted(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.members[id]; old.GetFollower() {
		m.members[id] = m.setFollower(old, "")
	}
}

// Follows tells whether the log says that a node is a follower.
func (s *Store) Follows(id cluster.NodeID) bool {
	s.machine.mu.Lock()
	defer s.machine.mu.Unlock()
	return s.machine.members[string(id)].GetFollower()
}
