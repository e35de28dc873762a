package fallback

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// cuttingStream is cut when so many bytes of pieces have come.
type cuttingStream struct {
	grpc.ServerStream
	left *atomic.Int64
}

var errCutOff = errors.New("the cable was pulled")

func (c cuttingStream) RecvMsg(m any) error {
	err := c.ServerStream.RecvMsg(m)
	if r, ok := m.(*pb.PushRequest); ok {
		for _, p := range r.GetPieces() {
			if c.left.Add(-int64(len(p.GetData()))) < 0 {
				return errCutOff
			}
		}
	}
	return err
}

func (c cuttingStream) SendMsg(m any) error {
	if r, ok := m.(*pb.FetchResponse); ok {
		for _, p := range r.GetPieces() {
			if c.left.Add(-int64(len(p.GetData()))) < 0 {
				return errCutOff
			}
		}
	}
	return c.ServerStream.SendMsg(m)
}

type cutting struct {
	*server
	left *atomic.Int64
}

func (c cutting) Push(s grpc.BidiStreamingServer[pb.PushRequest, pb.PushResponse]) error {
	return c.server.Push(&grpc.GenericServerStream[pb.PushRequest, pb.PushResponse]{ServerStream: cuttingStream{s, c.left}})
}

func (c cutting) Fetch(s grpc.BidiStreamingServer[pb.FetchRequest, pb.FetchResponse]) error {
	return c.server.Fetch(&grpc.GenericServerStream[pb.FetchRequest, pb.FetchResponse]{ServerStream: cuttingStream{s, c.left}})
}

// What came of a large blob before a cut does not travel again: 64 MB that were
// cut at 60 cost 4 more, pushed and fetched, also from another peer.
func TestATransferThatWasCutGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, cut, slack = 64 << 20, 60 << 20, 1 << 20
		net := newNet(t)
		a := net.node("n-a")
		b := NewPush("n-b", newMemStore("s-b"), net, nil)
		defer b.Close()
		left := new(atomic.Int64)
		net.serve("n-b", cutting{&server{push: b}, left})
		refs := a.store.addAll(content(1, size, 5))

		left.Store(cut)
		if _, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2)); err == nil {
			t.Fatal("the cut was not noticed")
		}
		left.Store(1 << 40)
		if _, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2)); err != nil {
			t.Fatal(err)
		}
		if s := b.Stats().Received; s.Wire < size-slack || s.Wire > size+slack {
			t.Errorf("%d bytes came for a push of %d", s.Wire, size)
		}
		if !b.store.(*memStore).holds(refs) {
			t.Error("it is not whole")
		}

		c := net.node("n-c")
		left.Store(cut)
		if err := c.Fetch(testContext(t), refs, nil, nodes("n-b"), nil); err == nil {
			t.Fatal("the cut was not noticed")
		}
		if err := c.Fetch(testContext(t), refs, nil, nodes("n-a"), nil); err != nil {
			t.Fatal(err)
		}
		if s := c.Stats().Fetched; s.Wire < size-slack || s.Wire > size+slack || !c.store.holds(refs) {
			t.Errorf("%d bytes came for a fetch of %d", s.Wire, size)
		}
	})
}

// A beginning that is another blob's is found by the digest; then all comes.
func TestARestBehindAnotherBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		a, b := net.node("n-a"), net.node("n-b")
		refs := a.store.addAll(content(1, 3<<20, 6))
		wrong := func() {
			b.store.mu.Lock()
			defer b.store.mu.Unlock()
			clear(b.store.blobs)
			b.store.partial[refs[0].Digest] = bytes.Repeat([]byte("x"), 2<<20)
		}
		wrong()
		if _, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2)); err != nil || !b.store.holds(refs) {
			t.Fatal(err)
		}
		wrong()
		if err := b.Fetch(testContext(t), refs, nil, nodes("n-a"), nil); err != nil || !b.store.holds(refs) {
			t.Fatal(err)
		}
		if n := b.Stats().Useless; n != 2 {
			t.Errorf("%d were of no use", n)
		}
	})
}
