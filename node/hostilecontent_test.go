package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Content that is not what it is called, of sizes that cannot be, in streams
// that break every rule or stall: refused, said once, and nothing grows.
func TestHostileContent(t *testing.T) {
	b := besiege(t)
	content := pb.NewContentClient(b.conn)
	d := manifest.DigestOf([]byte("x"))
	offer := func(size int64) *pb.Offer {
		return &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{{Digest: d[:], Size: size}}}
	}
	eager := offer(1)
	eager.Eager = true
	broken := map[string][]*pb.PushRequest{
		"2^63":               {{Offer: offer(1<<63 - 1)}},
		"negative":           {{Offer: offer(-1)}},
		"an exabyte":         {{Offer: offer(1 << 60)}},
		"no digest":          {{Offer: &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{{Size: 1}}}}},
		"too many":           {{Offer: &pb.Offer{Batch: 1, Blobs: make([]*pb.BlobInfo, 2000)}}},
		"not offered":        {{Pieces: []*pb.Piece{{Digest: d[:], Size: 1, Data: []byte("x")}}}},
		"longer than it is":  {{Offer: eager, Pieces: []*pb.Piece{{Digest: d[:], Size: 1, Data: []byte("xyz")}}}},
		"another size":       {{Offer: eager, Pieces: []*pb.Piece{{Digest: d[:], Size: 3, Data: []byte("xyz")}}}},
		"empty message":      {{}},
		"end of nothing":     {{End: 9}},
		"backwards":          {{Offer: eager, Pieces: []*pb.Piece{{Digest: d[:], Size: 1, Data: []byte("x")}}, End: 1}, {Offer: eager}},
		"a piece too large":  {{Offer: offer(1 << 30)}, {Pieces: []*pb.Piece{{Digest: d[:], Size: 1 << 30, Data: make([]byte, 300<<10)}}}},
		"many open batches":  manyOffers(100),
		"over gRPC's limits": {{Offer: eager, Pieces: []*pb.Piece{{Digest: d[:], Size: 1, Data: make([]byte, 1<<20)}}}},
	}
	for i, blob := range broken["too many"][0].GetOffer().GetBlobs() {
		_ = blob
		broken["too many"][0].GetOffer().GetBlobs()[i] = &pb.BlobInfo{Digest: d[:], Size: 1}
	}
	for name, messages := range broken {
		stream, err := content.Push(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			if stream.Send(m) != nil {
				break
			}
		}
		for err == nil {
			_, err = stream.Recv()
		}
		wantCode(t, name, err, codes.InvalidArgument, codes.ResourceExhausted)
	}
	// False content, a thousand times in one stream: each batch is refused.
	stream, err := content.Push(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 1000; i++ {
		wrong := manifest.DigestOf(fmt.Appendf(nil, "what it is called %d", i))
		if err := stream.Send(&pb.PushRequest{
			Offer:  &pb.Offer{Batch: i, Blobs: []*pb.BlobInfo{{Digest: wrong[:], Size: 4}}, Eager: true},
			Pieces: []*pb.Piece{{Digest: wrong[:], Size: 4, Data: []byte("evil")}}, End: i,
		}); err != nil {
			t.Fatal(err)
		}
		if r, err := stream.Recv(); err != nil || r.GetRefused() == "" {
			t.Fatalf("false content: %v %v", r, err)
		}
	}
	// Tiny messages without end, all of them allowed: one byte each.
	last := uint64(21_000)
	if os.Getenv("GATESYNC_SOAK") != "" {
		last = 1_000_000
	}
	go func() {
		for i := uint64(1001); i < last; i++ {
			if stream.Send(&pb.PushRequest{
				Offer: &pb.Offer{Batch: i, Blobs: []*pb.BlobInfo{{Digest: d[:], Size: 1}}, Eager: true}, Pieces: []*pb.Piece{{Digest: d[:], Size: 1, Data: []byte("x")}}, End: i,
			}) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	for receipts := 0; ; receipts++ {
		if _, err := stream.Recv(); err != nil {
			wantCode(t, "tiny messages", err, codes.Unknown) // the end of the stream
			if !errors.Is(err, io.EOF) || receipts == 0 {
				t.Errorf("%d receipts, %v", receipts, err)
			}
			break
		}
	}
	// A thousand streams that begin and stall, on several connections.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	refused, never := 0, manifest.DigestOf([]byte("never comes"))
	for range 4 {
		c := pb.NewContentClient(b.dial(t))
		for range 250 {
			s, err := c.Push(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if s.Send(&pb.PushRequest{Offer: &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{{Digest: never[:], Size: 1 << 30}}}}) == nil {
				if _, err := s.Recv(); status.Code(err) == codes.ResourceExhausted {
					refused++
				}
			}
		}
	}
	if refused < 900 {
		t.Errorf("only %d of 1,000 streams that stall were refused", refused)
	}
	// Fetches of what is not there, by the thousand.
	fetch, err := content.Fetch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]*pb.BlobInfo, 1024)
	for i := range want {
		none := manifest.DigestOf(fmt.Append(nil, i))
		want[i] = &pb.BlobInfo{Digest: none[:], Size: 1 << 39}
	}
	for range 50 {
		if err := fetch.Send(&pb.FetchRequest{Want: want}); err != nil {
			t.Fatal(err)
		}
		if m, err := fetch.Recv(); err != nil || len(m.GetMissing()) != len(want) {
			t.Fatalf("%d missing, %v", len(m.GetMissing()), err)
		}
	}
	b.unharmed(t)
}

func manyOffers(n int) (out []*pb.PushRequest) {
	for i := range n {
		d := manifest.DigestOf(fmt.Append(nil, i))
		out = append(out, &pb.PushRequest{Offer: &pb.Offer{Batch: uint64(i + 1), Blobs: []*pb.BlobInfo{{Digest: d[:], Size: 1}}}})
	}
	return out
}
