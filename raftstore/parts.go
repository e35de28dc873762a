package raftstore

import (
	"google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// MaxBuffered bounds the parts that wait for their last one, all together, in
// bytes; and so the size of the largest changeset.
const MaxBuffered = 64 << 20

// maxPartial bounds how many changesets may be under way in parts at once.
const maxPartial = 256

// partial is a changeset whose last part has not come yet. The next part must
// be number len(parts).
type partial struct {
	id    manifest.ChangesetID
	parts []*pb.Changeset
	bytes int
}

// gather takes one part of a changeset. It returns the changeset once it is
// whole, else the outcome for the part.
func (s *state) gather(id manifest.ChangesetID, c *pb.Changeset) (whole *pb.Changeset, o *pb.Outcome) {
	if c.GetParts() == 0 {
		return c, nil
	}
	if c.GetPart() >= c.GetParts() {
		return nil, refuse(CodeMalformed, "part %d of %d", c.GetPart(), c.GetParts())
	}
	p := s.partial(id)
	have := 0
	if p != nil {
		have = len(p.parts)
	}
	switch next := int(c.GetPart()); {
	case next < have:
		return nil, done() // a retry
	case next > have:
		return nil, refuse(CodeParts, "part %d of %s came before part %d; send all parts again", next, id, have)
	}
	if c.GetPart() < c.GetParts()-1 {
		return nil, s.buffer(p, id, c)
	}
	whole = c
	if p != nil {
		whole = merge(p.parts, c)
		s.dropParts(func(q *partial) bool { return q == p })
	}
	return whole, nil
}

func (s *state) partial(id manifest.ChangesetID) *partial {
	for _, p := range s.parts {
		if p.id == id {
			return p
		}
	}
	return nil
}

// buffer keeps a part. Where there is no room, what was begun first gives way:
// its proposer has probably died, and if not, it begins anew.
func (s *state) buffer(p *partial, id manifest.ChangesetID, c *pb.Changeset) *pb.Outcome {
	size := proto.Size(c)
	if p == nil {
		p = &partial{id: id}
		s.parts = append(s.parts, p)
	}
	if p.bytes+size > MaxBuffered {
		s.dropParts(func(q *partial) bool { return q == p })
		return refuse(CodeTooLarge, "changeset %s is over %d MB of paths; split it", id, MaxBuffered>>20)
	}
	p.parts = append(p.parts, c)
	p.bytes += size
	for s.bufferedBytes() > MaxBuffered || len(s.parts) > maxPartial {
		oldest := s.parts[0]
		if oldest == p {
			oldest = s.parts[1] // p alone fits, so there is another
		}
		s.dropParts(func(q *partial) bool { return q == oldest })
	}
	return done()
}

func (s *state) bufferedBytes() (n int) {
	for _, p := range s.parts {
		n += p.bytes
	}
	return n
}

// dropParts forgets the partial changesets that gone names. The slice is
// replaced, not changed: a frozen snapshot may hold it.
func (s *state) dropParts(gone func(*partial) bool) {
	var kept []*partial
	for _, p := range s.parts {
		if !gone(p) {
			kept = append(kept, p)
		}
	}
	s.parts = kept
}

// merge puts the changes of all parts into one changeset; everything else
// counts as the last part says it.
func merge(parts []*pb.Changeset, last *pb.Changeset) *pb.Changeset {
	var changes []*pb.Change
	for _, p := range parts {
		changes = append(changes, p.GetChanges()...)
	}
	return &pb.Changeset{
		Id: last.GetId(), Tree: last.GetTree(), Mode: last.GetMode(), Origin: last.GetOrigin(), TimeNs: last.GetTimeNs(),
		Message: last.GetMessage(), Receipts: last.GetReceipts(), Changes: append(changes, last.GetChanges()...),
	}
}
