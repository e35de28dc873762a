package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

const (
	// proposeWithin bounds the wait for a majority where the caller sets no limit.
	proposeWithin = 30 * time.Second
	// treeOpensWithin bounds the wait of a proposal that comes at the start of a
	// daemon: a new tree has to be agreed upon first.
	treeOpensWithin = 5 * time.Second
	// maxPiece bounds one message of content.
	maxPiece = 1 << 20
	// spreadAgain and spreadPause: a node that died a moment ago is still taken
	// for alive, and its receipt is missed.
	spreadAgain = 50 * time.Millisecond
	spreadPause = 500 * time.Millisecond
)

// changesetLog is what a proposal needs of the log.
type changesetLog interface {
	Propose(ctx context.Context, c manifest.Changeset) (manifest.Result, error)
}

// ProposeChangeset commits what a person or a program wants changed. The
// changes reach the trees, this node's too, as any other revision does.
func (s *localService) ProposeChangeset(stream grpc.ClientStreamingServer[pb.ProposeChangesetRequest, pb.ProposeChangesetResponse]) error {
	p := proposal{of: s, stream: stream}
	if err := p.receive(stream.Context()); err != nil {
		return cluster.NotCommitted(err)
	}
	within := proposeWithin
	if p.header.GetTimeoutNs() > 0 {
		within = time.Duration(p.header.GetTimeoutNs())
	}
	ctx, cancel := context.WithTimeout(stream.Context(), within)
	defer cancel()
	res, err := p.commit(ctx)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&pb.ProposeChangesetResponse{Result: proto.FromResult(res), Digests: p.digests()})
}

// proposal is one call of ProposeChangeset. One goroutine.
type proposal struct {
	of      *localService
	stream  grpc.ClientStreamingServer[pb.ProposeChangesetRequest, pb.ProposeChangesetResponse]
	header  *pb.ProposalHeader
	tree    *tree
	changes []manifest.Change
	unsent  map[int]bool // of changes: their content has to come with the call
	size    int          // of the changes' messages, in bytes
}

func errPiece() error { return badProposal("a piece of content has at most %d bytes", maxPiece) }

func badProposal(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// receive takes the whole proposal in; contents go straight into the blob store.
func (p *proposal) receive(ctx context.Context) error {
	p.unsent = map[int]bool{}
	for {
		m, err := p.stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch of := m.GetOf().(type) {
		case *pb.ProposeChangesetRequest_Header:
			err = p.takeHeader(of.Header)
		case *pb.ProposeChangesetRequest_Changes:
			err = p.takeChanges(of.Changes)
		case *pb.ProposeChangesetRequest_Content:
			err = p.takeContent(of.Content)
		default:
			err = badProposal("a message of a proposal says nothing that this version knows")
		}
		if err != nil {
			return err
		}
	}
	switch {
	case len(p.changes) == 0:
		return badProposal("a proposal without changes")
	case len(p.unsent) > 0:
		for i := range p.unsent {
			return badProposal("%s: its content did not come, and no digest names it", p.changes[i].Path)
		}
	}
	return p.haveContent(ctx)
}

func (p *proposal) takeHeader(h *pb.ProposalHeader) error {
	if p.header != nil {
		return badProposal("a proposal has one header")
	}
	ctx, cancel := context.WithTimeout(p.stream.Context(), treeOpensWithin)
	defer cancel()
	t, err := p.of.trees.await(ctx, h.GetTree())
	if err != nil {
		return status.Error(codes.NotFound, err.Error())
	}
	p.header, p.tree = h, t
	return nil
}

// takeChanges takes further changes, under the policy of this node's tree.
func (p *proposal) takeChanges(m *pb.ProposalChanges) error {
	if p.header == nil {
		return badProposal("a proposal begins with its header")
	}
	for _, c := range m.GetChanges() {
		path, err := manifest.ParsePath(string(c.GetPath()))
		if err != nil {
			return badProposal("%v", err)
		}
		// Parts of a changeset wait in the memory of every node.
		if p.size += len(path) + len(c.GetNew().GetTarget()); p.size > raftstore.MaxBuffered {
			return badProposal("the paths of a changeset take at most %d MB: split it", raftstore.MaxBuffered>>20)
		}
		entry, err := p.entry(path, c.GetNew())
		if err != nil {
			return err
		}
		p.changes = append(p.changes, manifest.Change{Path: path, Expect: manifest.Revision(c.GetExpect()), New: entry})
	}
	return nil
}

// entry is what a message asks for, as this tree can take it.
func (p *proposal) entry(path manifest.Path, m *pb.Entry) (manifest.Entry, error) {
	if m == nil {
		return p.fit(path, manifest.Entry{})
	}
	if m.GetKind() == 0 || m.GetKind() > uint32(manifest.Symlink) {
		return manifest.Entry{}, badProposal("%s: unknown kind %d", path, m.GetKind())
	}
	e := manifest.Entry{
		Kind: manifest.Kind(m.GetKind()), Mode: m.GetMode(), Size: m.GetSize(), MTime: m.GetMtimeNs(), Target: string(m.GetTarget()),
	}
	if e.MTime == 0 {
		e.MTime = time.Now().UnixNano()
	}
	if !e.HasContent() {
		return p.fit(path, e)
	}
	if len(m.GetDigest()) == 0 { // known once the content has come
		p.unsent[len(p.changes)] = true
		e.Digest = manifest.DigestOf(nil)
	} else {
		d, err := manifest.DigestFromBytes(m.GetDigest())
		if err != nil {
			return manifest.Entry{}, badProposal("%s: %v", path, err)
		}
		e.Digest = d
	}
	return p.fit(path, e)
}

func (p *proposal) fit(path manifest.Path, e manifest.Entry) (manifest.Entry, error) {
	e, err := p.tree.syncr.Fit(path, e)
	if err != nil {
		return e, badProposal("%v", err)
	}
	return e, nil
}

// takeContent takes a file's content in, from its first piece to its last.
func (p *proposal) takeContent(first *pb.ProposalContent) error {
	i := int(first.GetChange())
	switch {
	case i >= len(p.changes) || !p.changes[i].New.HasContent():
		return badProposal("content for change %d, which is no new file", i)
	case len(first.GetData()) > maxPiece:
		return errPiece()
	}
	e := &p.changes[i].New
	r := &pieces{stream: p.stream, change: first.GetChange(), next: first}
	ref, err := p.of.blobs.Put(r)
	if err == nil {
		err = r.drained()
	}
	if err != nil {
		return fmt.Errorf("take in the content of %s: %w", p.changes[i].Path, err)
	}
	if !p.unsent[i] && ref != e.Blob() {
		return badProposal("%s: its content is %s of %d bytes, announced was %s of %d", p.changes[i].Path,
			ref.Digest.Short(), ref.Size, e.Digest.Short(), e.Size)
	}
	delete(p.unsent, i)
	e.Digest, e.Size = ref.Digest, ref.Size
	return nil
}

// pieces reads one file's content from the messages of a proposal.
type pieces struct {
	stream grpc.ClientStreamingServer[pb.ProposeChangesetRequest, pb.ProposeChangesetResponse]
	change uint32
	next   *pb.ProposalContent // what is left of the latest message
}

// Read implements io.Reader.
func (r *pieces) Read(b []byte) (int, error) {
	for len(r.next.GetData()) == 0 {
		if r.next.GetEnd() {
			return 0, io.EOF
		}
		m, err := r.stream.Recv()
		if errors.Is(err, io.EOF) {
			return 0, badProposal("the content of change %d has no end", r.change)
		}
		if err != nil {
			return 0, err
		}
		c := m.GetContent()
		switch {
		case c == nil || c.GetChange() != r.change:
			return 0, badProposal("the content of change %d was not ended before something else began", r.change)
		case len(c.GetData()) > maxPiece:
			return 0, errPiece()
		}
		r.next = c
	}
	n := copy(b, r.next.Data)
	r.next.Data = r.next.Data[n:]
	return n, nil
}

// drained makes sure that the store has read all there was.
func (r *pieces) drained() error {
	if len(r.next.GetData()) > 0 || !r.next.GetEnd() {
		return errors.New("content was left over")
	}
	return nil
}

// haveContent fetches what the proposal only names by digest.
func (p *proposal) haveContent(ctx context.Context) error {
	var missing []manifest.BlobRef
	for _, ref := range p.refs() {
		size, ok := p.of.blobs.Size(ref.Digest)
		switch {
		case !ok:
			missing = append(missing, ref)
		case size != ref.Size:
			return badProposal("content %s has %d bytes, not %d", ref.Digest.Short(), size, ref.Size)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := p.of.carrier.Fetch(ctx, missing, p.replaced(), func(manifest.Digest, error) {}); err != nil {
		return fmt.Errorf("content that the proposal names is not here, and could not be fetched: %w", err)
	}
	return nil
}

// replaced is the committed content that stands where the changes are.
func (p *proposal) replaced() manifest.Bases {
	view, _ := p.of.log.View(p.header.GetTree())
	return view.Replaced(p.changes)
}

// refs lists the contents that the changes need, each once.
func (p *proposal) refs() []manifest.BlobRef {
	var refs []manifest.BlobRef
	seen := map[manifest.Digest]bool{}
	for _, c := range p.changes {
		if c.New.HasContent() && !seen[c.New.Digest] {
			seen[c.New.Digest] = true
			p.of.blobs.touch(c.New.Digest)
			refs = append(refs, c.New.Blob())
		}
	}
	return refs
}

func (p *proposal) digests() [][]byte {
	out := make([][]byte, len(p.changes))
	for i, c := range p.changes {
		if c.New.HasContent() {
			out[i] = c.New.Digest[:]
		}
	}
	return out
}

// commit makes the content durable on a majority and proposes. Receipts that
// no longer suffice when the log looks at them (the voters have changed) are
// asked for again; each attempt is a proposal of its own, made only after the
// one before was refused.
func (p *proposal) commit(ctx context.Context) (manifest.Result, error) {
	set := manifest.Changeset{
		Tree: p.header.GetTree(), Mode: manifest.PerPath, Origin: manifest.Origin{Kind: manifest.FromAPI},
		Time: time.Now().UnixNano(), Message: p.header.GetMessage(), Changes: p.changes,
	}
	if p.header.GetAtomic() {
		set.Mode = manifest.Atomic
	}
	refs := p.refs()
	for {
		if len(refs) > 0 {
			receipts, err := p.spread(ctx, refs)
			if err != nil {
				return manifest.Result{}, cluster.NotCommitted(err)
			}
			set.Receipts = receipts
		}
		res, err := p.of.proposals.Propose(ctx, set)
		if !isCode(err, raftstore.CodeReceipts) {
			return res, err
		}
		select {
		case <-ctx.Done():
			return res, err
		case <-time.After(spreadAgain):
		}
	}
}

// spread tries for receipts until ctx ends.
func (p *proposal) spread(ctx context.Context, refs []manifest.BlobRef) ([]manifest.Receipt, error) {
	bases := p.replaced()
	for pause := spreadAgain; ; pause = min(2*pause, spreadPause) {
		receipts, err := p.of.carrier.Spread(ctx, refs, bases)
		if err == nil {
			return receipts, nil
		}
		select {
		case <-ctx.Done():
			if !p.of.log.Quorum() {
				err = fmt.Errorf("%w (%w)", cluster.ErrNoQuorum, err)
			}
			return nil, fmt.Errorf("the content did not come to a majority in time: %w", err)
		case <-time.After(pause):
		}
	}
}
