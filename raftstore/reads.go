package raftstore

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
)

// Reads answer from the local machine: committed, but on a follower perhaps a
// moment behind the leader. Barrier waits that moment.

// View returns a tree as committed; false where the cluster has no such tree.
func (s *Store) View(tree string) (manifest.View, bool) { return s.machine.View(tree) }

// Since lists a tree's commits above a revision, oldest first; false where the
// history does not reach back that far.
func (s *Store) Since(tree string, after manifest.Revision) ([]manifest.Commit, bool) {
	return s.machine.Since(tree, after)
}

// History lists at most limit commits (0: all) of a tree ("": of all trees),
// newest first, from a revision (0: the newest) downwards.
func (s *Store) History(tree string, from manifest.Revision, limit int) []manifest.Commit {
	return s.machine.History(tree, from, limit)
}

// Oldest returns the oldest revision that the history holds.
func (s *Store) Oldest() manifest.Revision { return s.machine.Oldest() }

// Revision returns the newest committed revision known here.
func (s *Store) Revision() manifest.Revision { return s.machine.Revision() }

// Trees lists the trees by name.
func (s *Store) Trees() []TreeInfo { return s.machine.Trees() }

// Cluster returns the cluster's identity; id is empty before it is known here.
func (s *Store) Cluster() (id string, caCert, caKey []byte) { return s.machine.Cluster() }

// Format returns the active format of the log, as known here.
func (s *Store) Format() uint32 { return s.machine.Format() }

// Member returns a member's name; false where the id is none's.
func (s *Store) Member(id cluster.NodeID) (name string, ok bool) { return s.machine.Member(id) }

// Removed tells whether an id was a member's that was removed: it never comes back.
func (s *Store) Removed(id cluster.NodeID) bool { return s.machine.Removed(id) }

// SharesKnown tells whether the log's format has sightings and stewards.
func (s *Store) SharesKnown() bool { return s.machine.SharesKnown() }

// TargetsKnown tells whether the log's format has targets.
func (s *Store) TargetsKnown() bool { return s.machine.TargetsKnown() }

// Targets lists the targets by name, with who pushes to each.
func (s *Store) Targets() []cluster.Target { return s.machine.Targets() }

// Heard is when this node last knew of a leader: it heard from one, or it was
// one, and a majority said so within the lease. Zero: it never did, or its log's
// disk hangs, or it is a follower, which hears of leaders at second hand. A leader that was stopped and wakes up does not count before a
// majority has answered again.
func (s *Store) Heard() time.Time {
	if s.Silent() || s.Follows(s.cfg.ID) {
		return time.Time{}
	}
	if s.raft.State() == raft.Leader {
		return s.led.latest(s.verifyLeader)
	}
	if _, known := s.Leader(); !known {
		return time.Time{}
	}
	return s.raft.LastContact()
}

// Shares returns what the log says of a tree's directories.
func (s *Store) Shares(tree string) cluster.Shares { return s.machine.Shares(tree) }

// Authorities returns the CAs of the cluster, as known here.
func (s *Store) Authorities() Authorities { return s.machine.Authorities() }

// Freeze returns the whole state, for a backup.
func (s *Store) Freeze() *Frozen { return s.machine.Freeze() }

// Members lists the members by id, with their roles in Raft; a member that
// Raft does not know (yet) has no role. A follower that still votes (it is on its
// way out of Raft) is a voter.
func (s *Store) Members() []cluster.Member {
	roles := make(map[cluster.NodeID]cluster.Role)
	for _, srv := range s.raft.GetConfiguration().Configuration().Servers {
		roles[cluster.NodeID(srv.ID)] = roleOf(srv.Suffrage)
	}
	members := s.machine.Members()
	for i := range members {
		role := roles[members[i].ID]
		if role == cluster.Voter && members[i].Role == cluster.Follower {
			members[i].Wish = cluster.NonVoter // else nobody would take it its vote
		}
		if role == cluster.Voter || members[i].Role == "" {
			members[i].Role = role
		}
	}
	return members
}

// Servers lists who takes part in Raft, by ID and Role alone.
func (s *Store) Servers() ([]cluster.Member, error) {
	future := s.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, err
	}
	var servers []cluster.Member
	for _, srv := range future.Configuration().Servers {
		servers = append(servers, cluster.Member{ID: cluster.NodeID(srv.ID), Role: roleOf(srv.Suffrage)})
	}
	return servers, nil
}

func roleOf(s raft.ServerSuffrage) cluster.Role {
	if s == raft.Voter {
		return cluster.Voter
	}
	return cluster.NonVoter
}

// Leader returns who leads, as known here.
func (s *Store) Leader() (cluster.NodeID, bool) {
	_, id := s.raft.LeaderWithID()
	return cluster.NodeID(id), id != ""
}

// Quorum tells whether a majority works, as far as this node can see: it leads
// (a leader without a majority steps down within the lease), or it has heard
// from a leader lately.
func (s *Store) Quorum() bool {
	if s.Silent() {
		return false
	}
	if s.raft.State() == raft.Leader {
		return true
	}
	_, known := s.Leader()
	return known && time.Since(s.raft.LastContact()) < s.cfg.Tuning.Heartbeat*3/2
}

// CaughtUp tells whether this node has applied everything that was committed
// when it last found a leader, and still hears from that leader.
func (s *Store) CaughtUp() bool { return s.caughtUp.Load() && s.Quorum() }

// Stats returns Raft's own figures.
func (s *Store) Stats() map[string]string { return s.raft.Stats() }
