package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Proposal is a changeset as a program on this machine proposes it.
type Proposal struct {
	Tree    string
	Atomic  bool // all or nothing
	Message string
	Timeout time.Duration // for the commit, once all content is in; 0: the daemon's
	Changes []Change
}

// Change is one change of a Proposal. The content of a new file comes
// from Content, which is read once; its entry then needs neither digest nor
// size. Without Content the entry names what the cluster has already. A mode of
// 0 is the usual one.
type Change struct {
	manifest.Change
	Content io.Reader
}

// Piece is how much content one message holds at the most, in either direction.
const Piece = 256 << 10

const (
	firstPiece  = 4 << 10 // most files are small
	sendChanges = 500     // in one message
)

// Propose commits a changeset through the daemon at the other end of c. An
// error that is cluster.ErrNotCommitted says that nothing was committed, nor
// will be by this call; after any other error (a time-out, a daemon that died)
// the outcome is unknown.
func Propose(ctx context.Context, c pb.LocalClient, p Proposal) (manifest.Result, error) {
	ctx, cancel := context.WithCancel(ctx) // ends the stream, whatever becomes of it
	defer cancel()
	stream, err := c.ProposeChangeset(ctx)
	if err != nil {
		return manifest.Result{}, cluster.NotCommitted(err)
	}
	// The daemon proposes nothing before it has seen the end of the stream.
	sent := sendProposal(stream.Send, p)
	if sent != nil && !errors.Is(sent, io.EOF) {
		return manifest.Result{}, cluster.NotCommitted(sent)
	}
	res, err := stream.CloseAndRecv() // after io.EOF too: it says why
	if sent != nil {
		err = cluster.NotCommitted(err)
	}
	return proto.ToResult(res.GetResult()), err
}

func sendProposal(send func(*pb.ProposeChangesetRequest) error, p Proposal) error {
	err := send(&pb.ProposeChangesetRequest{Of: &pb.ProposeChangesetRequest_Header{Header: &pb.ProposalHeader{
		Tree: p.Tree, Atomic: p.Atomic, Message: p.Message, TimeoutNs: int64(p.Timeout),
	}}})
	if err != nil {
		return err
	}
	var batch []*pb.Change
	for i, ch := range p.Changes {
		batch = append(batch, &pb.Change{Path: []byte(ch.Path), Expect: uint64(ch.Expect), New: proto.FromEntry(ch.New)})
		if len(batch) < sendChanges && i < len(p.Changes)-1 {
			continue
		}
		err := send(&pb.ProposeChangesetRequest{Of: &pb.ProposeChangesetRequest_Changes{Changes: &pb.ProposalChanges{Changes: batch}}})
		if err != nil {
			return err
		}
		batch = nil
	}
	for i, ch := range p.Changes {
		if ch.Content == nil {
			continue
		}
		if err := sendContent(send, uint32(i), ch.Content); err != nil {
			return fmt.Errorf("%s: %w", ch.Path, err)
		}
	}
	return nil
}

func sendContent(send func(*pb.ProposeChangesetRequest) error, change uint32, r io.Reader) error {
	buf := make([]byte, firstPiece)
	for ; ; buf = make([]byte, Piece) { // a message keeps what it was given
		n, err := io.ReadFull(r, buf)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return err
		}
		err = send(&pb.ProposeChangesetRequest{Of: &pb.ProposeChangesetRequest_Content{Content: &pb.ProposalContent{
			Change: change, Data: buf[:n], End: end,
		}}})
		if err != nil || end {
			return err
		}
	}
}

// Read calls fn with each node that a read finds, in path order for each
// path asked for, and returns the revision that the read is of.
func Read(ctx context.Context, c pb.LocalClient, req *pb.ReadTreeRequest, fn func(manifest.Path, manifest.Node) error) (manifest.Revision, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.ReadTree(ctx, req)
	if err != nil {
		return 0, err
	}
	var rev manifest.Revision
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return rev, nil
		}
		if err != nil {
			return 0, err
		}
		rev = manifest.Revision(m.GetRevision())
		for _, tn := range m.GetNodes() {
			p, err := manifest.ParsePath(string(tn.GetPath()))
			if err != nil {
				return 0, err
			}
			n, err := proto.ToNode(tn.GetNode())
			if err != nil {
				return 0, fmt.Errorf("%s: %w", p, err)
			}
			if err := fn(p, n); err != nil {
				return 0, err
			}
		}
	}
}
