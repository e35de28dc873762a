package fallback

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// raw opens a Push stream to a node without any of this package's manners.
func (n *testNet) raw(id string) grpc.BidiStreamingClient[pb.PushRequest, pb.PushResponse] {
	n.t.Helper()
	s, err := n.content(id).Push(testContext(n.t))
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// rawFetch asks a node for content, as no fetcher might.
func (n *testNet) rawFetch(id string, m *pb.FetchRequest) grpc.BidiStreamingClient[pb.FetchRequest, pb.FetchResponse] {
	n.t.Helper()
	s, err := n.content(id).Fetch(testContext(n.t))
	if err != nil {
		n.t.Fatal(err)
	}
	if err := s.Send(m); err != nil {
		n.t.Fatal(err)
	}
	return s
}

func (n *testNet) content(id string) pb.ContentClient {
	n.t.Helper()
	c, err := n.Conn(context.Background(), nodes(id)[0])
	if err != nil {
		n.t.Fatal(err)
	}
	return pb.NewContentClient(c)
}

func offerOf(batch uint64, eager bool, blobs ...[]byte) *pb.Offer {
	o := &pb.Offer{Batch: batch, Eager: eager}
	for _, b := range blobs {
		d := manifest.DigestOf(b)
		o.Blobs = append(o.Blobs, &pb.BlobInfo{Digest: d[:], Size: int64(len(b))})
	}
	return o
}

// pieceOf is the run [from, to) of a blob.
func pieceOf(b []byte, from, to int) *pb.Piece {
	d := manifest.DigestOf(b)
	return &pb.Piece{Digest: d[:], Size: int64(len(b)), Offset: int64(from), Data: b[from:to]}
}

func changed(p *pb.Piece, f func(*pb.Piece)) *pb.Piece { f(p); return p }

func TestHostileStreams(t *testing.T) {
	a, b := []byte(strings.Repeat("a", 1000)), []byte(strings.Repeat("b", 1000))
	big := bytes.Repeat([]byte("z"), 2*maxPiece)
	digest := manifest.DigestOf(a)
	offer := func(o *pb.Offer) *pb.PushRequest { return &pb.PushRequest{Offer: o} }
	pieces := func(p ...*pb.Piece) *pb.PushRequest { return &pb.PushRequest{Pieces: p} }
	sized := func(size int64) *pb.Offer {
		return &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{{Digest: digest[:], Size: size}}}
	}
	many := &pb.Offer{Batch: 1}
	for range batchBlobs + 1 {
		many.Blobs = append(many.Blobs, &pb.BlobInfo{Digest: digest[:], Size: 1000})
	}
	var flood []*pb.PushRequest
	for i := range uint64(openBatches + 1) {
		flood = append(flood, offer(offerOf(i+1, false, a)))
	}
	endless := append([]*pb.PushRequest{offer(offerOf(1, false, a)), pieces(pieceOf(a, 0, 10))}, slices.Repeat([]*pb.PushRequest{{}}, maxBeats+1)...)
	for name, script := range map[string][]*pb.PushRequest{
		"a piece of another size":     {offer(offerOf(1, false, a)), pieces(changed(pieceOf(a, 0, 10), func(p *pb.Piece) { p.Size = 5000 }))},
		"pieces out of order":         {offer(offerOf(1, false, a)), pieces(pieceOf(a, 0, 10), pieceOf(a, 20, 30))},
		"a blob that begins late":     {offer(offerOf(1, false, a)), pieces(pieceOf(a, 10, 20))},
		"a piece twice":               {offer(offerOf(1, false, a)), pieces(pieceOf(a, 0, 10), pieceOf(a, 0, 10))},
		"a negative offset":           {offer(offerOf(1, false, a)), pieces(changed(pieceOf(a, 0, 10), func(p *pb.Piece) { p.Offset = -1 }))},
		"more than announced":         {offer(offerOf(1, false, a)), pieces(pieceOf(a, 0, 900), changed(pieceOf(a, 900, 1000), func(p *pb.Piece) { p.Data = make([]byte, 200) }))},
		"empty pieces without end":    {offer(offerOf(1, false, a)), pieces(pieceOf(a, 0, 10), pieceOf(a, 10, 10))},
		"interleaved blobs":           {offer(offerOf(1, false, a, b)), pieces(pieceOf(a, 0, 10), pieceOf(b, 0, 10))},
		"a piece that is too large":   {offer(offerOf(1, false, big)), pieces(pieceOf(big, 0, maxPiece+1))},
		"a blob that was not offered": {offer(offerOf(1, false, a)), pieces(pieceOf(b, 0, 10))},
		"a piece before any offer":    {pieces(pieceOf(b, 0, 10))},
		"a digest that is none":       {offer(offerOf(1, false, a)), pieces(&pb.Piece{Digest: []byte("short")})},
		"the end of an unknown batch": {{End: 3}},
		"an end within a blob":        {offer(offerOf(1, false, a)), {Pieces: []*pb.Piece{pieceOf(a, 0, 10)}, End: 1}},
		"a giant size":                {offer(sized(1 << 60))},
		"a negative size":             {offer(sized(-1))},
		"an offer of nothing":         {offer(&pb.Offer{Batch: 1})},
		"an offer of too many":        {offer(many)},
		"a blob twice in a batch":     {offer(offerOf(1, false, a, a))},
		"a blob of two sizes":         {offer(offerOf(1, false, a)), offer(&pb.Offer{Batch: 2, Blobs: []*pb.BlobInfo{{Digest: digest[:], Size: 7}}})},
		"a batch number that is used": {offer(offerOf(1, false, a)), offer(offerOf(1, false, b))},
		"a batch number zero":         {offer(offerOf(0, false, a))},
		"an eager batch too large":    {offer(offerOf(1, true, bytes.Repeat([]byte("e"), eagerBytes+1)))},
		"too many open batches":       flood,
		"an empty message":            {{}},
		"empty messages without end":  endless,
	} {
		t.Run(name, func(t *testing.T) {
			net := newNet(t)
			n := net.node("n-a")
			s := net.raw("n-a")
			for _, m := range script {
				if err := s.Send(m); err != nil {
					break // the receiver was quick; Recv says why
				}
			}
			var err error
			for err == nil {
				_, err = s.Recv()
			}
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("the stream ended with %v", err)
			}
			if n.store.Has(digest) {
				t.Error("something was stored")
			}
			if v := n.arrivals.find(digest); v != nil {
				t.Error("somebody is still expected to bring the blob")
			}
		})
	}
}

func answerTo(t *testing.T, s grpc.BidiStreamingClient[pb.PushRequest, pb.PushResponse], m *pb.PushRequest) *pb.PushResponse {
	t.Helper()
	if err := s.Send(m); err != nil {
		t.Fatal(err)
	}
	for {
		r, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if r.GetOf() != nil { // not just that it is at work
			return r
		}
	}
}

// A wrong digest is the batch's fault; the stream goes on.
func TestWrongDigest(t *testing.T) {
	net := newNet(t)
	n := net.node("n-a")
	s := net.raw("n-a")
	a := []byte("what was announced")
	forged := pieceOf(a, 0, len(a))
	forged.Data = []byte("something else ..."[:len(a)])
	r := answerTo(t, s, &pb.PushRequest{Offer: offerOf(1, true, a), Pieces: []*pb.Piece{forged}, End: 1})
	if !strings.Contains(r.GetRefused(), "digest") || r.GetBatch() != 1 {
		t.Fatalf("answer %v", r)
	}
	if n.store.Has(manifest.DigestOf(a)) {
		t.Error("it was stored")
	}
	r = answerTo(t, s, &pb.PushRequest{Offer: offerOf(2, true, a), Pieces: []*pb.Piece{pieceOf(a, 0, len(a))}, End: 2})
	if r.GetReceipt().GetStore() != "s-n-a" || r.GetBatch() != 2 {
		t.Errorf("answer %v", r)
	}
	if n.store.flushCount() != 1 {
		t.Errorf("%d flushes", n.store.flushCount())
	}
}

// No receipt for what did not come.
func TestEndWithoutContent(t *testing.T) {
	net := newNet(t)
	net.node("n-a")
	s := net.raw("n-a")
	a := []byte("never sent")
	if r := answerTo(t, s, &pb.PushRequest{Offer: offerOf(1, false, a)}); len(r.GetNeeds().GetDigests()) != 1 {
		t.Fatalf("answer %v", r)
	}
	if r := answerTo(t, s, &pb.PushRequest{End: 1}); !strings.Contains(r.GetRefused(), "did not come") {
		t.Errorf("answer %v", r)
	}
}

func TestWrongSizeOfWhatIsHere(t *testing.T) {
	net := newNet(t)
	n := net.node("n-a")
	ref := n.store.add([]byte("here"))
	s := net.raw("n-a")
	if err := s.Send(&pb.PushRequest{Offer: &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{{Digest: ref.Digest[:], Size: 5}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
}

// A sender that stops within a batch is given up; one that is idle is not.
func TestStalledSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		net.node("n-a", withLimits(short()))
		s := net.raw("n-a")
		a := []byte(strings.Repeat("a", 1000))
		if r := answerTo(t, s, &pb.PushRequest{Offer: offerOf(1, true, []byte("x")), Pieces: []*pb.Piece{pieceOf([]byte("x"), 0, 1)}, End: 1}); r.GetReceipt() == nil {
			t.Fatalf("answer %v", r)
		}
		<-time.After(2 * short().stall)
		if r := answerTo(t, s, &pb.PushRequest{Offer: offerOf(2, false, a)}); r.GetNeeds() == nil {
			t.Fatalf("after a pause: %v", r)
		}
		if err := s.Send(&pb.PushRequest{Pieces: []*pb.Piece{pieceOf(a, 0, 10)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%v", err)
		}
	})
}

// watched tells how a node's Push handlers end.
type watched struct {
	*server
	ended chan error
}

func (w watched) Push(s grpc.BidiStreamingServer[pb.PushRequest, pb.PushResponse]) error {
	err := w.server.Push(s)
	w.ended <- err
	return err
}

// A sender that reads no answers fills no memory here: it is given up.
func TestSenderThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		n := net.node("n-a", withLimits(short()))
		w := watched{server: &server{push: n.Push}, ended: make(chan error, 1)}
		net.serve("n-w", w)
		s := net.raw("n-w")
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for i := uint64(0); ; i++ {
				b := []byte{byte(i), byte(i >> 8), byte(i >> 16)}
				if s.Send(&pb.PushRequest{Offer: offerOf(i+1, true, b), Pieces: []*pb.Piece{pieceOf(b, 0, 3)}, End: i + 1}) != nil {
					return
				}
			}
		}()
		if err := <-w.ended; status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%v", err)
		}
		net.disconnect("n-w")
		<-sent
	})
}

func TestOffersBetweenPieces(t *testing.T) {
	net := newNet(t)
	n := net.node("n-a")
	s := net.raw("n-a")
	a, b := []byte(strings.Repeat("a", 1000)), []byte("b")
	if r := answerTo(t, s, &pb.PushRequest{Offer: offerOf(1, false, a)}); r.GetNeeds() == nil {
		t.Fatalf("answer %v", r)
	}
	if r := answerTo(t, s, &pb.PushRequest{Offer: offerOf(2, false, b), Pieces: []*pb.Piece{pieceOf(a, 0, 500)}}); r.GetBatch() != 2 || r.GetNeeds() == nil {
		t.Fatalf("answer %v", r)
	}
	if r := answerTo(t, s, &pb.PushRequest{Offer: offerOf(3, false, []byte("c")), Pieces: []*pb.Piece{pieceOf(a, 500, 1000)}}); r.GetBatch() != 3 || r.GetNeeds() == nil {
		t.Fatalf("answer %v", r)
	}
	if r := answerTo(t, s, &pb.PushRequest{End: 1}); r.GetBatch() != 1 || r.GetReceipt() == nil {
		t.Errorf("answer %v", r)
	}
	if !n.store.Has(manifest.DigestOf(a)) {
		t.Error("not stored")
	}
}

func TestHostileFetchRequests(t *testing.T) {
	many := &pb.FetchRequest{}
	d := manifest.DigestOf([]byte("x"))
	for range batchBlobs + 1 {
		many.Want = append(many.Want, &pb.BlobInfo{Digest: d[:], Size: 1})
	}
	for name, m := range map[string]*pb.FetchRequest{
		"nothing": {}, "too many": many, "no digest": {Want: []*pb.BlobInfo{{Digest: []byte("x")}}},
		"a negative size": {Want: []*pb.BlobInfo{{Digest: d[:], Size: -1}}},
	} {
		net := newNet(t)
		net.node("n-a")
		s := net.rawFetch("n-a", m)
		if _, err := s.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A reader that does not read is given up.
func TestFetcherThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		n := net.node("n-a", withLimits(short()))
		refs := n.store.addAll(content(1, 8<<20, 60))
		s := net.rawFetch("n-a", &pb.FetchRequest{Want: infosOf(refs)})
		<-time.After(3 * short().stall)
		var err error
		for err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%v", err)
		}
	})
}

// infosOf names blobs on the wire.
func infosOf(refs []manifest.BlobRef) (out []*pb.BlobInfo) {
	for _, ref := range refs {
		out = append(out, infoOf(named{BlobRef: ref}))
	}
	return out
}

// A word that pieces wait for their turn stands for nothing else, also behind
// the end of another batch.
func TestAWordThatItIsAtWork(t *testing.T) {
	net := newNet(t)
	n := net.node("n-a")
	s := net.raw("n-a")
	all := content(2, 1000, 12)
	for i, b := range all {
		answerTo(t, s, &pb.PushRequest{Offer: offerOf(uint64(i+1), false, b)})
	}
	for _, m := range []*pb.PushRequest{
		{Pieces: []*pb.Piece{pieceOf(all[0], 0, 1000)}, End: 1}, {},
		{Pieces: []*pb.Piece{pieceOf(all[1], 0, 10)}}, {},
	} {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	r := answerTo(t, s, &pb.PushRequest{Pieces: []*pb.Piece{pieceOf(all[1], 10, 1000)}, End: 2})
	for err := error(nil); r.GetBatch() != 2; {
		if r, err = s.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if r.GetReceipt() == nil || !n.store.Has(manifest.DigestOf(all[0])) {
		t.Errorf("the answer is %v", r)
	}
}
