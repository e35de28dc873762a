package raftstore

import (
	gproto "google.golang.org/protobuf/proto"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Window is how many sequences of a node the machine remembers outcomes for.
// A proposer keeps the sequences of its open proposals closer together.
const Window = 128

// maxRemembered bounds one remembered outcome, in bytes: an answer to an entry
// of the log fits, one to many parts may not. It bounds what a node can have
// everybody remember for it.
const maxRemembered = 2 * MaxEntry

// session remembers the outcomes of one node's latest proposals.
type session struct {
	newest   uint64
	outcomes map[uint64]*pb.Outcome // of sequences above newest-Window
}

// stale tells whether seq is below what is remembered: whether it was applied
// is no longer known.
func (s *session) stale(seq uint64) bool { return s.newest >= Window && seq <= s.newest-Window }

// remembered returns the outcome that id's proposal had, or the refusal of a
// stale one; nil where the proposal is new.
func (s *state) remembered(node string, seq uint64) *pb.Outcome {
	ses, ok := s.sessions[node]
	if !ok {
		return nil
	}
	if ses.stale(seq) {
		return refuse(CodeStale, "proposal %s/%d is older than the last %d of that node; propose anew", node, seq, Window)
	}
	return ses.outcomes[seq]
}

// remember keeps the outcome of a proposal that is neither stale nor known,
// and forgets what the window leaves behind.
func (s *state) remember(node string, seq uint64, o *pb.Outcome) {
	ses, ok := s.sessions[node]
	if !ok {
		ses = &session{outcomes: make(map[uint64]*pb.Outcome)}
		s.sessions[node] = ses
	}
	if gproto.Size(o) > maxRemembered {
		// Only a refusal of very many paths is that long: nothing was applied,
		// or its proposer is none of ours.
		o = refuse(CodeStale, "the answer to %s/%d was too long to be remembered; propose anew", node, seq)
	}
	ses.outcomes[seq] = o
	if seq <= ses.newest {
		return
	}
	ses.newest = seq
	for old := range ses.outcomes {
		if ses.stale(old) {
			delete(ses.outcomes, old)
		}
	}
	s.dropParts(func(p *partial) bool { return p.id.Node == node && ses.stale(p.id.Seq) })
}
