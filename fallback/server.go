package fallback

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// server is the receiving end of both calls. gRPC cannot interrupt a Recv or a
// Send, so both happen in goroutines of their own and the handler waits with
// its timers and for Close; the goroutines end when the handler has returned,
// because gRPC then ends the stream.
type server struct {
	pb.UnimplementedContentServer
	push *Push
}

// Push implements pb.ContentServer.
func (s *server) Push(stream grpc.BidiStreamingServer[pb.PushRequest, pb.PushResponse]) error {
	p := s.push
	if !p.enter() {
		return statusOf(ErrClosed)
	}
	defer p.wg.Done()
	peer, leave, err := p.admit(stream.Context(), true)
	if err != nil {
		return err
	}
	defer leave()
	return statusOf(newReceiver(p, peer, stream).run())
}

// Fetch implements pb.ContentServer: it sends what is asked for, one request
// after the other. A caller that does not read is given up.
func (s *server) Fetch(stream grpc.BidiStreamingServer[pb.FetchRequest, pb.FetchResponse]) error {
	p := s.push
	if !p.enter() {
		return statusOf(ErrClosed)
	}
	defer p.wg.Done()
	_, leave, err := p.admit(stream.Context(), false)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	requests, out, sent := make(chan *pb.FetchRequest), make(chan *pb.FetchResponse), make(chan error)
	if !p.spawn(func() { receiveAll(ctx, cancel, stream.Recv, requests) }) || !p.spawn(func() { sendAll(ctx, stream.Send, out, sent) }) {
		return statusOf(ErrClosed)
	}
	// The cutter's buffer belongs to the message until its Send has returned.
	deliver := func(m *pb.FetchResponse) error {
		stall := time.NewTimer(p.limits.stall)
		defer stall.Stop()
		out, acked := out, (<-chan error)(nil)
		for {
			select {
			case out <- m:
				out, acked = nil, sent
			case err := <-acked:
				return err
			case <-stall.C:
				return errStalled
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-p.ctx.Done():
				return ErrClosed
			}
		}
	}
	cut := cutter{store: p.store, pace: p.pace, sent: p.stats.served.add}
	defer cut.close()
	for {
		select {
		case r, ok := <-requests:
			if !ok {
				return statusOf(context.Cause(ctx)) // nil where the caller is done
			}
			if err := s.answer(ctx, &cut, r, deliver); err != nil {
				return statusOf(err)
			}
		case <-p.ctx.Done():
			return statusOf(ErrClosed)
		}
	}
}

func (s *server) answer(ctx context.Context, cut *cutter, r *pb.FetchRequest, deliver func(*pb.FetchResponse) error) error {
	refs, err := refsOf(r.GetWant())
	if err != nil {
		return err
	}
	m := &pb.FetchResponse{}
	var held []manifest.BlobRef
	for _, ref := range refs {
		if size, ok := s.push.store.Size(ref.Digest); ok && size == ref.Size {
			held = append(held, ref)
		} else {
			m.Missing = append(m.Missing, ref.Digest[:])
		}
	}
	for len(held) > 0 || len(m.GetMissing()) > 0 {
		m.Pieces = cut.fill(&held)
		if err := s.push.pace.wait(ctx, dataIn(m.Pieces), func() {}); err != nil {
			return err
		}
		if err := deliver(m); err != nil {
			return err
		}
		m = &pb.FetchResponse{}
	}
	return nil
}

var errStalled = errors.New("no progress")

// statusOf tells the other end whose fault it was.
func statusOf(err error) error {
	var protocol *ProtocolError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &protocol):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, ErrClosed):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, errStalled):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	return err
}

// receiveAll passes messages on until the stream or ctx ends; then it closes
// in, and where the stream did not end well, cancel has been told why.
func receiveAll[M any](ctx context.Context, cancel context.CancelCauseFunc, recv func() (M, error), in chan<- M) {
	defer close(in)
	for {
		m, err := recv()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				cancel(err)
			}
			return
		}
		select {
		case in <- m:
		case <-ctx.Done():
			return
		}
	}
}

// sendAll sends what comes and reports each Send to sent, which may be nil,
// until a Send fails or ctx ends.
func sendAll[M any](ctx context.Context, send func(M) error, out <-chan M, sent chan<- error) {
	for {
		select {
		case m := <-out:
			err := send(m)
			if sent != nil {
				select {
				case sent <- err:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
