package raftstore

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/records"
)

// maxRecord bounds one record of a snapshot, in bytes: a commit of the largest
// changeset, with what stood there before.
const maxRecord = 512 << 20

// ErrSnapshot: a snapshot is torn, damaged or of another format.
var ErrSnapshot = errors.New("unusable snapshot")

// Restore replaces the state by a snapshot. Where the snapshot is unusable
// (ErrSnapshot) the machine stays as it was.
func (m *Machine) Restore(in io.Reader) error {
	fresh := restoring{state: newState()}
	if err := fresh.read(in); err != nil {
		return fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.ahead = fresh.state, 0
	return nil
}

// restoring is a state that is being read. Nothing in a snapshot is trusted:
// it may have come from a peer.
type restoring struct {
	state
	tree *tree // that the nodes being read belong to
}

func (r *restoring) read(from io.Reader) error {
	in := newSnapshotReader(from)
	first, err := in.next()
	if err != nil {
		return err
	}
	if err := r.header(first.GetHeader()); err != nil {
		return err
	}
	for {
		rec, err := in.next()
		if err != nil {
			return err
		}
		if t := rec.GetTrailer(); t != nil {
			if err := in.Check(t.GetRecords(), t.GetDigest()); err != nil {
				return err
			}
			return r.complete()
		}
		if err := r.record(rec); err != nil {
			return fmt.Errorf("record %d: %w", in.Count()-1, err)
		}
	}
}

func (r *restoring) header(h *pb.SnapshotHeader) error {
	switch f := h.GetFormat(); {
	case f == 0:
		return errors.New("of no format")
	case f > Newest:
		return &NewerError{What: "a snapshot of the log", Format: f}
	}
	if also := h.GetAlsoTrusted(); also != nil {
		if fingerprint(also.GetCertPem()) == "" || h.GetCluster() == nil {
			return errors.New("a malformed CA")
		}
		r.also = also
	}
	r.format = h.GetFormat()
	if h.GetHistoryBelow() == 0 || h.GetHistoryBelow()-1 > h.GetRevision() {
		return fmt.Errorf("history from %d up to revision %d", h.GetHistoryBelow(), h.GetRevision())
	}
	r.revision, r.below = manifest.Revision(h.GetRevision()), manifest.Revision(h.GetHistoryBelow())
	r.identity = h.GetCluster()
	r.targets.epochs = h.GetTargetEpochs()
	r.incarnation = max(cluster.Incarnation(h.GetIncarnation()), cluster.FirstIncarnation)
	r.voters = slices.Compact(slices.Sorted(slices.Values(h.GetVoters())))
	for _, id := range h.GetRemoved() {
		r.removed[id] = true
	}
	return nil
}

func (r *restoring) record(rec *pb.SnapshotRecord) error {
	switch of := rec.GetOf().(type) {
	case *pb.SnapshotRecord_Tree:
		return r.addTree(of.Tree)
	case *pb.SnapshotRecord_Node:
		return r.addNode(of.Node)
	case *pb.SnapshotRecord_Commit:
		return r.addCommit(of.Commit)
	case *pb.SnapshotRecord_Member:
		return r.addMember(of.Member)
	case *pb.SnapshotRecord_Token:
		return r.addToken(of.Token)
	case *pb.SnapshotRecord_Session:
		return r.addSession(of.Session)
	case *pb.SnapshotRecord_Part:
		return r.addPart(of.Part)
	case *pb.SnapshotRecord_Sighting:
		return r.addSighting(of.Sighting)
	case *pb.SnapshotRecord_Mount:
		return r.addMount(of.Mount)
	case *pb.SnapshotRecord_Target:
		return r.addTarget(of.Target)
	}
	return errors.New("of a kind that is not known here")
}

func (r *restoring) addTree(st *pb.SnapshotTree) error {
	t := st.GetTree()
	if _, ok := r.trees[t.GetName()]; ok || r.putTree(t).GetCode() != uint32(Done) {
		return fmt.Errorf("malformed tree %q", t.GetName())
	}
	r.tree = r.trees[t.GetName()]
	r.tree.places.epochs = st.GetEpochs()
	return nil
}

// addNode relies on path order: a parent stands before what is in it.
func (r *restoring) addNode(n *pb.SnapshotNode) error {
	p, err := manifest.ParsePath(string(n.GetPath()))
	if err != nil {
		return err
	}
	node, err := proto.ToNode(n.GetNode())
	if err != nil {
		return fmt.Errorf("path %q: %w", p, err)
	}
	switch {
	case r.tree == nil || r.tree.info.GetName() != n.GetTree():
		return fmt.Errorf("path %q is of tree %q, which was not announced", p, n.GetTree())
	case node.Entry.Absent() || node.Entry.ValidateAt(p) != nil || node.Revision == 0 || node.Revision > r.revision || !utf8.ValidString(node.Author):
		return fmt.Errorf("path %q: malformed node", p)
	case p.Dir() != "" && !r.tree.nodes.Entry(p.Dir()).IsDir():
		return fmt.Errorf("path %q has no parent directory", p)
	}
	r.tree.nodes.Set(p, node)
	return nil
}

func (r *restoring) addCommit(c *pb.Commit) error {
	commit, err := proto.ToCommit(c)
	if err != nil {
		return err
	}
	if want := r.below + manifest.Revision(len(r.history)); commit.Revision != want || want > r.revision {
		return fmt.Errorf("revision %d where %d was due", commit.Revision, want)
	}
	r.history = append(r.history, commit)
	return nil
}

func (r *restoring) addMember(m *pb.Member) error {
	if o := r.admissible(m); o != nil {
		return errors.New(o.GetMessage())
	}
	if !validWish(m.GetWish()) {
		return fmt.Errorf("member %q with the unknown role %q", m.GetId(), m.GetWish())
	}
	r.members[m.GetId()] = m
	return nil
}

func (r *restoring) addToken(t *pb.SnapshotToken) error {
	put := t.GetToken()
	if !validToken(put) || r.tokens[put.GetId()] != nil || len(r.tokens) >= maxTokens {
		return fmt.Errorf("malformed token %q", put.GetId())
	}
	r.tokens[put.GetId()] = &token{put: put, usedBy: t.GetUsedBy()}
	return nil
}

func (r *restoring) addSession(s *pb.SnapshotSession) error {
	if _, ok := r.members[s.GetNode()]; !ok || s.GetSeq() == 0 || r.remembered(s.GetNode(), s.GetSeq()) != nil {
		return fmt.Errorf("malformed session %s/%d", s.GetNode(), s.GetSeq())
	}
	outcome := s.GetOutcome()
	if outcome == nil {
		outcome = done()
	}
	r.remember(s.GetNode(), s.GetSeq(), outcome)
	return nil
}

func (r *restoring) addPart(c *pb.Changeset) error {
	id := proto.ToID(c.GetId())
	if _, ok := r.members[id.Node]; !ok {
		return fmt.Errorf("part of %s, who is no member", id)
	}
	if whole, o := r.gather(id, c); whole != nil || o.GetCode() != uint32(Done) {
		return fmt.Errorf("malformed part of %s", id)
	}
	return nil
}

// complete checks what only the whole can tell.
func (r *restoring) complete() error {
	if have := r.below + manifest.Revision(len(r.history)); have != r.revision+1 {
		return fmt.Errorf("history ends before revision %d, the snapshot's is %d", have, r.revision)
	}
	return nil
}

// snapshotReader reads a snapshot's records.
type snapshotReader struct{ *records.Reader }

func newSnapshotReader(in io.Reader) snapshotReader {
	return snapshotReader{records.NewReader(in, 1<<16, maxRecord)}
}

func (r snapshotReader) next() (*pb.SnapshotRecord, error) {
	rec := new(pb.SnapshotRecord)
	return rec, r.Next(rec)
}
