package fallback

import (
	"testing"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// scripted is a peer that answers the first message with a script.
type scripted struct {
	pb.UnimplementedContentServer
	push  []*pb.PushResponse
	fetch func(*pb.FetchRequest) []*pb.FetchResponse
}

func (s scripted) Push(stream grpc.BidiStreamingServer[pb.PushRequest, pb.PushResponse]) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	for _, m := range s.push {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return nil
}

func (s scripted) Fetch(stream grpc.BidiStreamingServer[pb.FetchRequest, pb.FetchResponse]) error {
	r, err := stream.Recv()
	if err != nil {
		return err
	}
	for _, m := range s.fetch(r) {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return nil
}

func TestHostileAnswers(t *testing.T) {
	foreign := manifest.DigestOf([]byte("foreign"))
	receipt := func(batch uint64, store string) *pb.PushResponse {
		return &pb.PushResponse{Batch: batch, Of: &pb.PushResponse_Receipt{Receipt: &pb.BatchReceipt{Store: store}}}
	}
	needs := func(digests ...[]byte) *pb.PushResponse {
		return &pb.PushResponse{Batch: 1, Of: &pb.PushResponse_Needs{Needs: &pb.Needs{Digests: digests}}}
	}
	for name, script := range map[string][]*pb.PushResponse{
		"a receipt for another batch":   {receipt(7, "s-x")},
		"a receipt without a store":     {receipt(1, "")},
		"needs of what was not offered": {needs(foreign[:])},
		"needs of rubbish":              {needs([]byte("rubbish"))},
		"needs without end":             {needs(make([][]byte, 5000)...)},
		"needs twice":                   {needs(), needs()},
	} {
		t.Run(name, func(t *testing.T) {
			net := newNet(t)
			net.serve("n-evil", scripted{push: script})
			a := net.node("n-a")
			_, err := a.Spread(testContext(t), a.store.addAll(content(2, 100_000, 23)), nil, nodes("n-evil"), all(2))
			e := wantError[*ShortError](t, err)
			if p := wantError[*ProtocolError](t, e.Failed["n-evil"]); p.Peer != "n-evil" {
				t.Errorf("blames %q", p.Peer)
			}
			if len(e.Have) != 1 {
				t.Errorf("receipts %v", e.Have)
			}
		})
	}
}
