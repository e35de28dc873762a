package node

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// ReadTree tells what a tree holds as committed, all of it as of one revision.
func (s *localService) ReadTree(req *pb.ReadTreeRequest, stream grpc.ServerStreamingServer[pb.ReadTreeResponse]) error {
	paths := make([]manifest.Path, len(req.GetPaths()))
	for i, b := range req.GetPaths() {
		p, err := manifest.ParsePath(string(b))
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		paths[i] = p
	}
	if req.GetLinearizable() {
		// Whatever was acknowledged before this call stands in the log before
		// the barrier's entry.
		if err := s.log.Barrier(stream.Context()); err != nil {
			return s.explain(err)
		}
	}
	view, ok := s.log.View(req.GetTree())
	if !ok {
		return noTree(req.GetTree(), s.log.Trees())
	}
	out := treeSender{revision: uint64(view.Revision), send: stream.Send}
	if len(paths) == 0 {
		view.Manifest.All(out.add)
		return out.flush()
	}
	for _, p := range paths {
		if n, ok := view.Manifest.Get(p); ok {
			out.add(p, n)
		}
		if req.GetBelow() {
			view.Manifest.Under(p, out.add)
		}
	}
	return out.flush()
}

// treeSender sends nodes in batches; every message tells the revision.
type treeSender struct {
	revision uint64
	send     func(*pb.ReadTreeResponse) error
	batch    []*pb.TreeNode
	sent     bool
	err      error
}

// add tells whether to go on.
func (s *treeSender) add(p manifest.Path, n manifest.Node) bool {
	s.batch = append(s.batch, &pb.TreeNode{Path: []byte(p), Node: proto.FromNode(n)})
	if len(s.batch) == manifestBatch {
		s.next()
	}
	return s.err == nil
}

func (s *treeSender) next() {
	s.err = s.send(&pb.ReadTreeResponse{Revision: s.revision, Nodes: s.batch})
	s.batch, s.sent = nil, true
}

// flush sends the rest; an empty answer is an answer too.
func (s *treeSender) flush() error {
	if s.err == nil && (len(s.batch) > 0 || !s.sent) {
		s.next()
	}
	return s.err
}
