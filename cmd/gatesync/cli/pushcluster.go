package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/fallback/target"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// committedSource is what the cluster has committed, as the local daemon knows it.
type committedSource struct{ c pb.LocalClient }

// committed asks the daemon for its trees, and says in the options whose they are.
func committed(ctx context.Context, c pb.LocalClient, only []string, o *target.Options) (*committedSource, error) {
	s, err := status(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, t := range s.Trees {
		if len(only) == 0 || slices.Contains(only, t.Name) {
			o.Trees = append(o.Trees, t.Name)
		}
	}
	for _, n := range only {
		if !slices.Contains(o.Trees, n) {
			return nil, fmt.Errorf("this node has no tree %q: see `gatesync status`", n)
		}
	}
	if len(o.Trees) == 0 {
		return nil, errors.New("this node has no tree: push from one that has")
	}
	o.Cluster, o.Incarnation, o.Revision, o.History = s.Cluster, s.Incarnation, s.Revision, true
	return &committedSource{c}, nil
}

// Tree implements target.Source.
func (s *committedSource) Tree(ctx context.Context, name string) (*manifest.Manifest, []target.Line, error) {
	m := manifest.New()
	stream, err := s.c.ReadTree(ctx, &pb.ReadTreeRequest{Tree: name})
	err = each(stream, err, func(res *pb.ReadTreeResponse) error {
		for _, n := range res.GetNodes() {
			p, err := manifest.ParsePath(string(n.GetPath()))
			if err != nil {
				return err
			}
			node, err := proto.ToNode(n.GetNode())
			if err != nil {
				return err
			}
			m.Set(p, node)
		}
		return nil
	})
	return m, nil, err
}

// Open implements target.Source: content of the cluster goes by its digest.
func (s *committedSource) Open(ctx context.Context, _ string, _ manifest.Path, ref manifest.BlobRef) (io.ReadCloser, error) {
	if ref.Size == 0 {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	return s.content(ctx, ref.Digest)
}

// Old implements target.Source: history has older versions.
func (s *committedSource) Old(ctx context.Context, d manifest.Digest) (io.ReadCloser, error) {
	r, err := s.content(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", target.ErrNoOld, err)
	}
	return r, nil
}

func (s *committedSource) content(ctx context.Context, d manifest.Digest) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := s.c.Content(ctx, &pb.ContentRequest{Digest: d[:]})
	if err != nil {
		cancel()
		return nil, err
	}
	r := &contentReader{stream: stream, cancel: cancel}
	if r.fill() != nil && !errors.Is(r.err, io.EOF) {
		cancel()
		return nil, r.err
	}
	return r, nil
}

// contentReader reads a stream of content.
type contentReader struct {
	stream grpc.ServerStreamingClient[pb.ContentChunk]
	cancel context.CancelFunc
	buf    []byte
	err    error
}

func (r *contentReader) fill() error {
	for len(r.buf) == 0 && r.err == nil {
		var m *pb.ContentChunk
		if m, r.err = r.stream.Recv(); r.err == nil {
			r.buf = m.GetData()
		}
	}
	if len(r.buf) > 0 {
		return nil
	}
	return r.err
}

// Read implements io.Reader.
func (r *contentReader) Read(b []byte) (int, error) {
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(b, r.buf)
	r.buf = r.buf[n:]
	return n, nil
}

// Close ends the stream.
func (r *contentReader) Close() error {
	r.cancel()
	return nil
}
