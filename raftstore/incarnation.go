package raftstore

import (
	"maps"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// An incarnation is one life of a cluster: the first begins with init, the
// next where a lost majority was given up (recover) or a backup was made a
// cluster again (restore-cluster). Logs of different incarnations have nothing
// to say to each other; package transport keeps their nodes apart.

// Incarnation returns the life that the log belongs to.
func (m *Machine) Incarnation() cluster.Incarnation {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.incarnation
}

// Incarnation returns the life that this node's log belongs to. A log that has
// not begun yet says the first.
func (s *Store) Incarnation() cluster.Incarnation { return s.machine.Incarnation() }

// beginIncarnation begins the next life: roots of the old one become joiners'
// roots, and the old one's tokens are void. With a founder all other members
// are removed for good.
func (s *state) beginIncarnation(b *pb.BeginIncarnation, now int64) *pb.Outcome {
	next := cluster.Incarnation(b.GetIncarnation())
	if next <= s.incarnation {
		return refuse(CodeMalformed, "this log is of incarnation %s already", s.incarnation)
	}
	if f := b.GetFounder(); f != nil {
		if o := s.found(b, now); o != nil {
			return o
		}
	}
	s.incarnation = next
	s.tokens = make(map[string]*token)
	s.sessions = make(map[string]*session)
	s.parts = nil
	for _, t := range s.trees {
		t.info = s.generation(t.info, t.info.GetId())
	}
	return done()
}

// generation is a tree's as of this life: a root of any other life, be it
// another one of the same number, has another generation.
func (s *state) generation(p *pb.PutTree, id string) *pb.PutTree {
	return &pb.PutTree{Name: p.GetName(), Id: id, Generation: max(p.GetGeneration(), uint64(s.incarnation))}
}

// found makes the founder the only member. Targets are forgotten: what was made
// of a backup, perhaps in a laboratory, must not push its past to where the cluster
// that it was taken of still pushes, and fence that one off.
func (s *state) found(b *pb.BeginIncarnation, now int64) *pb.Outcome {
	old := s.members
	s.members = make(map[string]*pb.Member)
	if o := s.admissible(b.GetFounder()); o != nil {
		s.members = old
		return o
	}
	s.removed = maps.Clone(s.removed)
	for id := range old {
		if id != b.GetFounder().GetId() {
			s.removed[id] = true
			s.leave(id)
		}
	}
	s.targets.byName = nil
	s.setMember(b.GetFounder(), now)
	return nil
}

// Begin applies the first command of a new life to a state that was read from
// a log or a backup, with self as its only voter.
func (m *Machine) Begin(b *pb.BeginIncarnation, self string, now int64) error {
	out := m.Apply(&pb.Command{Format: m.Format(), TimeNs: now, Do: &pb.Command_BeginIncarnation{BeginIncarnation: b}})
	if err := OutcomeErr(out); err != nil {
		return err
	}
	m.SetVoters([]string{self})
	m.promoted(self)
	return nil
}
