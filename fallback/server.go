package fallback

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	var caller pulse // a request, or a word that it is still at work
	caller.beat()
	based := false // it may have to make something of a delta or a rest
	receive := func() (*pb.FetchRequest, error) {
		for {
			r, err := stream.Recv()
			caller.beat()
			based = based || slices.ContainsFunc(r.GetWant(), func(b *pb.BlobInfo) bool { return len(b.GetBase()) > 0 || b.GetBegun() > 0 })
			if err != nil || len(r.GetWant()) > 0 || !based {
				return r, err
			}
		}
	}
	if !p.spawn(func() { receiveAll(ctx, cancel, receive, requests) }) || !p.spawn(func() { sendAll(ctx, stream.Send, out, sent) }) {
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
				left := p.limits.stall - caller.quiet()
				if left <= 0 {
					return errStalled
				}
				stall.Reset(left)
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-p.ctx.Done():
				return ErrClosed
			}
		}
	}
	cut := cutter{ctx: ctx, store: p.store, deltas: p.deltas, pace: p.pace, sent: &p.stats.served}
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
	names, err := namesOf(r.GetWant())
	if err != nil {
		return err
	}
	alive := func() {}
	if r.GetHears() { // many may wait for their turn under a low limit, longer than anybody waits for a word
		alive = func() { _ = deliver(&pb.FetchResponse{}) } // the next deliver says why not
	}
	m := &pb.FetchResponse{}
	var held []outgoing
	for _, n := range names {
		if size, ok := s.push.store.Size(n.Digest); ok && size == n.Size {
			o := outgoing{ref: n.BlobRef, base: n.base}
			if n.base.IsZero() && n.begun < n.Size {
				o.begun = n.begun
			}
			held = append(held, o)
		} else {
			m.Missing = append(m.Missing, n.Digest[:])
		}
	}
	for len(held) > 0 || len(m.GetMissing()) > 0 {
		if len(held) > 0 && cut.cur == nil && s.push.deltas.slow(held[0].ref, held[0].base) {
			if err := s.prepare(ctx, held[0], deliver); err != nil {
				return err
			}
		}
		m.Pieces = cut.fill(&held)
		if err := s.push.pace.wait(ctx, dataIn(m.Pieces), alive); err != nil {
			return err
		}
		if err := deliver(m); err != nil {
			return err
		}
		m = &pb.FetchResponse{}
	}
	return nil
}

// prepare makes the delta of what is sent next, and tells the caller meanwhile
// that somebody is at work.
func (s *server) prepare(ctx context.Context, o outgoing, deliver func(*pb.FetchResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.push.ctx, cancel)()
	ready := make(chan struct{})
	if !s.push.spawn(func() {
		defer close(ready)
		s.push.deltas.release(s.push.deltas.get(ctx, o.ref, o.base))
	}) {
		return ErrClosed
	}
	beat := time.NewTicker(s.push.limits.hedge / 3)
	defer beat.Stop()
	for {
		select {
		case <-ready:
			return nil
		case <-beat.C:
			if err := deliver(&pb.FetchResponse{}); err != nil {
				cancel()
				<-ready
				return err
			}
		}
	}
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
