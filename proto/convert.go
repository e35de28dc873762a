package proto

import (
	"errors"
	"fmt"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// FromEntry turns an entry into its message; absent is nil.
func FromEntry(e manifest.Entry) *pb.Entry {
	if e.Absent() {
		return nil
	}
	m := &pb.Entry{Kind: uint32(e.Kind), Mode: e.Mode, Size: e.Size, MtimeNs: e.MTime}
	if !e.Digest.IsZero() {
		m.Digest = e.Digest[:]
	}
	if e.Target != "" {
		m.Target = []byte(e.Target)
	}
	return m
}

// ToEntry validates a message from a wire or a log and returns its entry;
// nil is absent.
func ToEntry(m *pb.Entry) (manifest.Entry, error) {
	if m == nil {
		return manifest.Entry{}, nil
	}
	e := manifest.Entry{
		Kind: manifest.Kind(m.GetKind()), Mode: m.GetMode(), Size: m.GetSize(),
		MTime: m.GetMtimeNs(), Target: string(m.GetTarget()),
	}
	if len(m.GetDigest()) > 0 {
		d, err := manifest.DigestFromBytes(m.GetDigest())
		if err != nil {
			return manifest.Entry{}, err
		}
		e.Digest = d
	}
	if m.GetKind() == 0 || m.GetKind() > 0xff {
		return manifest.Entry{}, fmt.Errorf("unknown kind %d", m.GetKind())
	}
	if err := e.Validate(); err != nil {
		return manifest.Entry{}, err
	}
	return e, nil
}

// toEntryAt is ToEntry for an entry that is to stand at p.
func toEntryAt(p manifest.Path, m *pb.Entry) (manifest.Entry, error) {
	e, err := ToEntry(m)
	if err == nil {
		err = e.ValidateAt(p)
	}
	if err != nil {
		return manifest.Entry{}, fmt.Errorf("path %q: %w", string(p), err)
	}
	return e, nil
}

// FromNode turns a node into its message; nil where nothing stands.
func FromNode(n manifest.Node) *pb.Node {
	if n.Entry.Absent() {
		return nil
	}
	return &pb.Node{Entry: FromEntry(n.Entry), Revision: uint64(n.Revision), Author: n.Author}
}

// ToNode is the reverse of FromNode.
func ToNode(m *pb.Node) (manifest.Node, error) {
	if m == nil {
		return manifest.Node{}, nil
	}
	if m.GetEntry() == nil {
		return manifest.Node{}, errors.New("a node without an entry")
	}
	e, err := ToEntry(m.GetEntry())
	return manifest.Node{Entry: e, Revision: manifest.Revision(m.GetRevision()), Author: m.GetAuthor()}, err
}

// fromID turns a changeset's id into its message.
func fromID(id manifest.ChangesetID) *pb.ChangesetID {
	return &pb.ChangesetID{Node: id.Node, Seq: id.Seq}
}

// ToID is the reverse of fromID.
func ToID(m *pb.ChangesetID) manifest.ChangesetID {
	return manifest.ChangesetID{Node: m.GetNode(), Seq: m.GetSeq()}
}

// FromChangeset turns a changeset into its message.
func FromChangeset(c manifest.Changeset) *pb.Changeset {
	m := &pb.Changeset{
		Id: fromID(c.ID), Tree: c.Tree, Mode: uint32(c.Mode), Origin: fromOrigin(c.Origin),
		TimeNs: c.Time, Message: c.Message,
		Changes: make([]*pb.Change, len(c.Changes)), Receipts: make([]*pb.Receipt, len(c.Receipts)),
	}
	for i, ch := range c.Changes {
		m.Changes[i] = &pb.Change{Path: []byte(ch.Path), Expect: uint64(ch.Expect), New: FromEntry(ch.New)}
	}
	for i, r := range c.Receipts {
		m.Receipts[i] = &pb.Receipt{Node: r.Node, Store: r.Store}
	}
	return m
}

// FromResult turns a machine's answer into its message.
func FromResult(r manifest.Result) *pb.Result {
	m := &pb.Result{Revision: uint64(r.Revision), AsOf: uint64(r.AsOf)}
	for _, f := range r.Refused {
		m.Refused = append(m.Refused, &pb.Refusal{Path: []byte(f.Path), Reason: uint32(f.Reason), Current: uint64(f.Current)})
	}
	return m
}

// ToResult is the reverse of FromResult.
func ToResult(m *pb.Result) manifest.Result {
	r := manifest.Result{Revision: manifest.Revision(m.GetRevision()), AsOf: manifest.Revision(m.GetAsOf())}
	for _, f := range m.GetRefused() {
		r.Refused = append(r.Refused, manifest.Refusal{
			Path: manifest.Path(f.GetPath()), Reason: manifest.Reason(f.GetReason()), Current: manifest.Revision(f.GetCurrent()),
		})
	}
	return r
}

// FromCommit turns a revision of the history into its message.
func FromCommit(c manifest.Commit) *pb.Commit {
	m := &pb.Commit{
		Revision: uint64(c.Revision), Id: fromID(c.ID), Tree: c.Tree, Origin: fromOrigin(c.Origin),
		TimeNs: c.Time, Message: c.Message, Changes: make([]*pb.Committed, len(c.Changes)),
	}
	for i, ch := range c.Changes {
		m.Changes[i] = &pb.Committed{Path: []byte(ch.Path), Old: FromNode(ch.Old), New: FromEntry(ch.New)}
	}
	return m
}

// ToCommit is the reverse of FromCommit.
func ToCommit(m *pb.Commit) (manifest.Commit, error) {
	c := manifest.Commit{
		Revision: manifest.Revision(m.GetRevision()), ID: ToID(m.GetId()), Tree: m.GetTree(),
		Origin: toOrigin(m.GetOrigin()), Time: m.GetTimeNs(), Message: m.GetMessage(),
		Changes: make([]manifest.Committed, len(m.GetChanges())),
	}
	if m.GetOrigin().GetKind() > 0xff {
		return c, fmt.Errorf("commit of unknown origin %d", m.GetOrigin().GetKind())
	}
	for i, ch := range m.GetChanges() {
		p, err := manifest.ParsePath(string(ch.GetPath()))
		if err != nil {
			return c, err
		}
		old, err := ToNode(ch.GetOld())
		if err != nil {
			return c, fmt.Errorf("path %q: %w", p, err)
		}
		e, err := toEntryAt(p, ch.GetNew())
		if err != nil {
			return c, err
		}
		c.Changes[i] = manifest.Committed{Path: p, Old: old, New: e}
	}
	return c, nil
}

func fromOrigin(o manifest.Origin) *pb.Origin { return &pb.Origin{Kind: uint32(o.Kind), Id: o.ID} }

func toOrigin(m *pb.Origin) manifest.Origin {
	return manifest.Origin{Kind: manifest.OriginKind(m.GetKind()), ID: m.GetId()}
}
