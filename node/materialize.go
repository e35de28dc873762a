package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/node/local"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// materializeFetch is how long members have to bring what this node lacks.
const materializeFetch = 30 * time.Second

// Materialize streams a tree as of a revision. It asks the log, the blob store
// and, for what is missing there, the other members; never the tree's
// directory, which may hang or be gone.
func (s *localService) Materialize(req *pb.MaterializeRequest, stream grpc.ServerStreamingServer[pb.MaterializeEvent]) error {
	ctx := stream.Context()
	current := s.upToDate(ctx)
	m := materializing{log: s.log, blobs: s.blobs.Store, fetch: s.bring, send: stream.Send}
	return m.run(ctx, req, &pb.MaterializeHead{Current: current, Known: math.MaxUint64})
}

// bring fetches what it can; what did not come is found by looking.
func (s *localService) bring(ctx context.Context, refs []manifest.BlobRef) {
	ctx, cancel := context.WithTimeout(ctx, materializeFetch)
	defer cancel()
	_ = s.carrier.Fetch(ctx, refs, nil, func(manifest.Digest, error) {})
}

// MaterializeStopped is Materialize for a node whose daemon does not run, up to
// the end of its log: a daemon that was killed has not written down how far
// that is committed, and the last minute is what a person misses first. The
// head says what is sure.
func MaterializeStopped(ctx context.Context, cfg config.Config, req *pb.MaterializeRequest, take func(*pb.MaterializeEvent) error) (err error) {
	d := dataDir(cfg.DataDir)
	if _, err := d.readNode(); err != nil {
		return err
	}
	lock, err := d.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	seen, err := readSeen(d.seen())
	if err != nil {
		seen = seenFile{} // then only the snapshot is sure
	}
	var unsure uint64 // the oldest revision that may not be committed
	r, err := raftstore.Replay(d.raft(), 0, seen.Applied, func(t raftstore.Tailing) {
		if rev := t.Outcome.GetResult().GetRevision(); unsure == 0 {
			unsure = rev
		}
	})
	if err != nil {
		return err
	}
	known := uint64(r.Machine.Revision())
	if unsure > 0 {
		known = unsure - 1
	}
	blobs, err := openBlobs(d, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	m := materializing{log: r.Machine, blobs: blobs, send: take}
	return m.run(ctx, req, &pb.MaterializeHead{Known: known})
}

// viewedLog is a log, or what a replayed one says.
type viewedLog interface {
	View(tree string) (manifest.View, bool)
	Since(tree string, after manifest.Revision) ([]manifest.Commit, bool)
	Oldest() manifest.Revision
	Trees() []raftstore.TreeInfo
}

// materializing is one revision on its way out.
type materializing struct {
	log   viewedLog
	blobs *blob.Store
	fetch func(context.Context, []manifest.BlobRef) // nil: there is nobody to ask
	send  func(*pb.MaterializeEvent) error
}

func (m materializing) run(ctx context.Context, req *pb.MaterializeRequest, head *pb.MaterializeHead) error {
	view, newest, err := m.view(req.GetTree(), manifest.Revision(req.GetRevision()))
	if err != nil {
		return err
	}
	head.Revision, head.Newest, head.Known = uint64(view.Revision), uint64(newest), min(uint64(newest), head.GetKnown())
	var refs []manifest.BlobRef
	view.Manifest.All(func(_ manifest.Path, n manifest.Node) bool {
		head.Entries++
		if n.Entry.HasContent() {
			head.Bytes += uint64(n.Entry.Size)
			if !m.blobs.Has(n.Entry.Digest) {
				refs = append(refs, n.Entry.Blob())
			}
		}
		return true
	})
	if err := m.send(&pb.MaterializeEvent{Of: &pb.MaterializeEvent_Head{Head: head}}); err != nil {
		return err
	}
	if len(refs) > 0 && m.fetch != nil {
		m.fetch(ctx, refs)
	}
	lacks, err := m.missing(view)
	if err != nil || lacks && !req.GetPartial() {
		return err // whoever asked has been told what, and knows that nothing follows
	}
	view.Manifest.All(func(p manifest.Path, n manifest.Node) bool {
		if err = ctx.Err(); err == nil {
			err = m.entry(ctx, p, n)
		}
		return err == nil
	})
	return err
}

// view finds a tree as of a revision.
func (m materializing) view(tree string, rev manifest.Revision) (view manifest.View, newest manifest.Revision, err error) {
	view, ok := m.log.View(tree)
	if !ok {
		return view, 0, noTree(tree, m.log.Trees())
	}
	newest = view.Revision
	if rev == 0 || rev == newest {
		return view, newest, nil
	}
	if rev > newest {
		return view, 0, status.Errorf(codes.NotFound, "this node does not know revision %d: its newest is %d", rev, newest)
	}
	commits, ok := m.log.Since(tree, rev)
	if !ok {
		return view, 0, status.Errorf(codes.NotFound, "the history does not reach back to revision %d any more: the oldest that can be had is %d (history.keep in gatesync.yaml)", rev, m.log.Oldest()-1)
	}
	return view.Before(rev, commits), newest, nil
}

// missing tells each path whose content cannot be had.
func (m materializing) missing(view manifest.View) (any bool, err error) {
	view.Manifest.All(func(p manifest.Path, n manifest.Node) bool {
		if n.Entry.HasContent() && !m.blobs.Has(n.Entry.Digest) {
			any = true
			err = m.lacks(p, n.Entry)
		}
		return err == nil
	})
	return any, err
}

func (m materializing) lacks(p manifest.Path, e manifest.Entry) error {
	return m.send(&pb.MaterializeEvent{Of: &pb.MaterializeEvent_Missing{Missing: &pb.MissingContent{Path: []byte(p), Entry: proto.FromEntry(e)}}})
}

// entry sends one entry; content that turns out to be damaged is fetched anew,
// once, and is missing after that.
func (m materializing) entry(ctx context.Context, p manifest.Path, n manifest.Node) error {
	if n.Entry.HasContent() && !m.blobs.Has(n.Entry.Digest) {
		return nil // it was told to be missing
	}
	for again := m.fetch != nil; ; again = false {
		if err := m.send(&pb.MaterializeEvent{Of: &pb.MaterializeEvent_Entry{Entry: &pb.TreeNode{Path: []byte(p), Node: proto.FromNode(n)}}}); err != nil {
			return err
		}
		if !n.Entry.HasContent() {
			return nil
		}
		bad, err := m.content(n.Entry.Digest)
		if err != nil {
			return err
		}
		if err := m.send(&pb.MaterializeEvent{Of: &pb.MaterializeEvent_Whole{Whole: bad == nil}}); err != nil || bad == nil {
			return err
		}
		if !again {
			return m.lacks(p, n.Entry)
		}
		m.fetch(ctx, []manifest.BlobRef{n.Entry.Blob()})
	}
}

// content sends a blob; bad is why it cannot be read.
func (m materializing) content(d manifest.Digest) (bad, err error) {
	r, bad := m.blobs.Open(d)
	if bad != nil {
		return bad, nil
	}
	defer r.Close()
	for {
		// A piece of its own for each message: gRPC may still be sending the last.
		buf := make([]byte, min(local.Piece, max(r.Size(), 1)))
		n, bad := io.ReadFull(r, buf)
		if errors.Is(bad, io.EOF) {
			return nil, nil
		}
		if bad != nil && !errors.Is(bad, io.ErrUnexpectedEOF) {
			return bad, nil
		}
		if err := m.send(&pb.MaterializeEvent{Of: &pb.MaterializeEvent_Data{Data: buf[:n]}}); err != nil {
			return nil, err
		}
	}
}
