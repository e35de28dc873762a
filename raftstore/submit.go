package raftstore

import (
	"context"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Propose commits a changeset from any node. Without an ID it is given one. It
// tries again under that id through changes of leader until ctx ends, so that
// it is applied at most once. What the machine refuses path by path is in the
// Result; what it refuses as a whole (too few receipts, no such tree) is an
// *OutcomeError.
//
// An error that is cluster.ErrNotCommitted says that nothing was committed, nor
// will be by this call. After any other error the outcome is unknown: the
// changeset was committed, or may yet be, or never will.
//
// A PerPath changeset must fit into one entry (else *TooLargeError: split it,
// its paths are independent). An Atomic one may be as large as MaxBuffered.
func (s *Store) Propose(ctx context.Context, c manifest.Changeset) (manifest.Result, error) {
	if c.ID.Seq == 0 {
		seq, err := s.sequence.take(ctx)
		if s.isClosing() {
			err = ErrClosed // and so the disk may be gone
		}
		if err != nil {
			s.report(err)
			return manifest.Result{}, cluster.NotCommitted(promised(err))
		}
		defer s.sequence.release(seq)
		c.ID = manifest.ChangesetID{Node: string(s.cfg.ID), Seq: seq}
	}
	parts, err := split(proto.FromChangeset(c), time.Now().UnixNano())
	if err != nil {
		return manifest.Result{}, cluster.NotCommitted(err)
	}
	out, err := s.sendParts(ctx, parts)
	if err != nil {
		return manifest.Result{}, err
	}
	return proto.ToResult(out.GetResult()), refusedWhole(out)
}

// refusedWhole is OutcomeErr for a changeset. Nearly every refusal says that
// nothing was committed; but what the machine no longer remembers may have
// been, by an attempt whose answer was lost, and what one that is too old does
// not understand any more the others may have taken.
func refusedWhole(out *pb.Outcome) error {
	err := OutcomeErr(out)
	switch Code(out.GetCode()) {
	case CodeStale, CodeNotMember, CodeFormat:
		return cluster.OutcomeUnknown(err)
	}
	return cluster.NotCommitted(err)
}

// sendParts commits one part after the other; the outcome of the last counts.
// Where the machine has lost the earlier ones (it keeps a bounded number), it
// begins again.
func (s *Store) sendParts(ctx context.Context, parts []*pb.Command) (out *pb.Outcome, err error) {
	const rounds = 3
	for round := range rounds {
		for _, cmd := range parts {
			out, err = s.Do(ctx, cmd)
			if err != nil && round > 0 {
				err = cluster.OutcomeUnknown(err) // a last part of before may still be on its way
			}
			if err != nil {
				return nil, err
			}
			// A result before the last part: an earlier attempt got through.
			if out.GetCode() != uint32(Done) || out.GetResult() != nil {
				break
			}
		}
		if out.GetCode() != uint32(CodeParts) {
			break
		}
	}
	return out, nil
}

// split makes the commands that carry a changeset: one, or for an atomic one
// that is too large for that as many as it takes.
func split(c *pb.Changeset, now int64) ([]*pb.Command, error) {
	whole := proposal(c, now)
	size := gproto.Size(whole)
	if size <= MaxEntry {
		return []*pb.Command{whole}, nil
	}
	if manifest.Mode(c.GetMode()) != manifest.Atomic {
		return nil, &TooLargeError{Size: size, Limit: MaxEntry}
	}
	// What is no change goes with the last part; every part has room for it.
	frame := gproto.Clone(c).(*pb.Changeset)
	frame.Changes = nil
	const perPart = 64 // the numbering, and each length prefix that grew
	room := MaxEntry - gproto.Size(proposal(frame, now)) - perPart
	groups, err := group(c.GetChanges(), room)
	if err != nil {
		return nil, err
	}
	commands := make([]*pb.Command, len(groups))
	for i, changes := range groups {
		part := &pb.Changeset{Id: c.GetId(), Tree: c.GetTree(), Mode: c.GetMode()}
		if i == len(groups)-1 {
			part = frame
		}
		part.Changes, part.Part, part.Parts = changes, uint32(i), uint32(len(groups))
		commands[i] = proposal(part, now)
	}
	return commands, nil
}

// group cuts changes into runs of at most room bytes.
func group(changes []*pb.Change, room int) (groups [][]*pb.Change, err error) {
	const prefix = 6 // tag and length of a change
	from, size := 0, 0
	for i, c := range changes {
		n := gproto.Size(c) + prefix
		if n > room {
			return nil, &TooLargeError{Size: MaxEntry + n - room, Limit: MaxEntry}
		}
		if size+n > room {
			groups = append(groups, changes[from:i])
			from, size = i, 0
		}
		size += n
	}
	return append(groups, changes[from:]), nil
}

func proposal(c *pb.Changeset, now int64) *pb.Command {
	return &pb.Command{Format: Format, TimeNs: now, Do: &pb.Command_Propose{Propose: c}}
}
