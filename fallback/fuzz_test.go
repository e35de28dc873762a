package fallback

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// tape is the far end of a stream: it says what is on it, then hangs up. It is
// a server's stream and a client's.
type tape struct {
	grpc.ServerStream
	ctx  context.Context
	rest []byte
	ends time.Duration   // how long it holds on at its end
	sent []proto.Message // by us; read once the stream has ended
}

func (s *tape) Context() context.Context   { return s.ctx }
func (*tape) CloseSend() error             { return nil }
func (*tape) Header() (metadata.MD, error) { return nil, nil }
func (*tape) Trailer() metadata.MD         { return nil }
func (s *tape) SendMsg(m any) error {
	s.sent = append(s.sent, proto.Clone(m.(proto.Message)))
	return nil
}
func (s *tape) RecvMsg(m any) error { return s.next(m.(proto.Message)) }
func (s *tape) next(m proto.Message) error {
	size, n := binary.Uvarint(s.rest)
	if n <= 0 || size > uint64(len(s.rest)-n) {
		if s.ends > 0 {
			select {
			case <-s.ctx.Done():
			case <-time.After(s.ends):
			}
		}
		return io.EOF
	}
	body := s.rest[n : n+int(size)]
	s.rest = s.rest[n+int(size):]
	if proto.Unmarshal(body, m) != nil {
		return errors.New("no message")
	}
	return nil
}

// tapePeer is a connection on which every stream is the same tape.
type tapePeer struct{ b []byte }

func (tapePeer) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return errors.New("no such call")
}

func (p tapePeer) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &tape{ctx: ctx, rest: p.b}, nil
}

func (p tapePeer) Conn(context.Context, cluster.NodeID) (grpc.ClientConnInterface, error) {
	return p, nil
}

// record writes messages to a tape.
func record(t testing.TB, messages ...proto.Message) (b []byte) {
	t.Helper()
	for _, m := range messages {
		body, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		b = append(binary.AppendUvarint(b, uint64(len(body))), body...)
	}
	return b
}

func fuzzPush(t *testing.T, peers Peers) (*Push, *memStore) {
	s := newMemStore("s-a")
	p := NewPush("n-a", s, peers, nil)
	p.limits = limits{stall: time.Second, hedge: time.Second, idle: time.Second, flush: time.Second}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if len(p.arrivals.m) > 0 {
			t.Errorf("%d blobs are still said to be coming", len(p.arrivals.m))
		}
	})
	return p, s
}

// wantWhole checks that every blob in a store is what it is called.
func wantWhole(t *testing.T, s *memStore) {
	t.Helper()
	for d, b := range s.blobs {
		if manifest.DigestOf(b) != d {
			t.Errorf("blob %s holds something else", d.Short())
		}
	}
}

// FuzzReceive: no sequence of messages brings a false blob into the store or
// gets a receipt for what is not there, durably.
func FuzzReceive(f *testing.F) {
	x, y := []byte("x"), []byte("yy")
	dx, dy := manifest.DigestOf(x), manifest.DigestOf(y)
	offer := &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{{Digest: dx[:], Size: 1}, {Digest: dy[:], Size: 2}}}
	eager := &pb.Offer{Batch: 1, Blobs: offer.GetBlobs(), Eager: true}
	px, py := &pb.Piece{Digest: dx[:], Size: 1, Data: x}, &pb.Piece{Digest: dy[:], Size: 2, Data: y}
	e := edit(2000, 1)
	packed := deltaOf(e, formDictionary, against(f, e.old, e.content))
	deltas := &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{infoOf(named{BlobRef: e.ref, base: e.bases[e.ref.Digest]})}}
	f.Add(record(f, &pb.PushRequest{Offer: deltas}, &pb.PushRequest{Pieces: []*pb.Piece{packed}, End: 1}))
	f.Add(record(f, &pb.PushRequest{Offer: deltas}, &pb.PushRequest{Pieces: []*pb.Piece{deltaOf(e, formCopies, []byte("rubbish"))}, End: 1}, &pb.PushRequest{Pieces: []*pb.Piece{packed}, End: 1}))
	for _, messages := range [][]proto.Message{
		{&pb.PushRequest{Offer: eager, Pieces: []*pb.Piece{px, py}, End: 1}},
		{&pb.PushRequest{Offer: offer}, &pb.PushRequest{Pieces: []*pb.Piece{px, {Digest: dy[:], Size: 2, Data: y[:1]}}}, &pb.PushRequest{Pieces: []*pb.Piece{{Digest: dy[:], Size: 2, Offset: 1, Data: y[1:]}}, End: 1}},
		{&pb.PushRequest{Offer: eager, Pieces: []*pb.Piece{{Digest: dx[:], Size: 1, Data: []byte("z")}}, End: 1}},
		{&pb.PushRequest{Offer: &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{{Digest: dx[:], Size: 1<<63 - 1}}}}},
		{&pb.PushRequest{Offer: &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{{Digest: dx[:], Size: -1}}}}},
		{&pb.PushRequest{Offer: eager, End: 1}}, {&pb.PushRequest{End: 7}}, {&pb.PushRequest{}},
		{&pb.PushRequest{Offer: eager, Pieces: []*pb.Piece{{Digest: dx[:], Broken: true}, nil}, End: 1}},
		{&pb.PushRequest{Offer: &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{nil}}}},
		{&pb.PushRequest{Offer: offer}, &pb.PushRequest{Offer: &pb.Offer{Batch: 2, Blobs: offer.GetBlobs()[:1]}, Pieces: []*pb.Piece{px}, End: 2}, &pb.PushRequest{End: 1}},
	} {
		f.Add(record(f, messages...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, s := fuzzPush(t, nil)
		s.add(e.old)
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stream := &tape{ctx: ctx, rest: b}
		stream.ends = 10 * time.Millisecond // the receipts need a moment
		_ = (&server{push: p}).Push(&grpc.GenericServerStream[pb.PushRequest, pb.PushResponse]{ServerStream: stream})
		cancel()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		wantWhole(t, s)
		offered := map[uint64]*pb.Offer{}
		for in := (&tape{rest: b}); ; {
			m := new(pb.PushRequest)
			if in.next(m) != nil {
				break
			}
			if o := m.GetOffer(); o != nil && offered[o.GetBatch()] == nil {
				offered[o.GetBatch()] = o
			}
		}
		for _, m := range stream.sent {
			r := m.(*pb.PushResponse)
			if r.GetReceipt() == nil {
				continue
			}
			if offered[r.GetBatch()] == nil {
				t.Fatalf("a receipt for batch %d, which was not offered", r.GetBatch())
			}
			for _, blob := range offered[r.GetBatch()].GetBlobs() {
				if d, err := manifest.DigestFromBytes(blob.GetDigest()); err != nil || !s.durable[d] {
					t.Errorf("a receipt for blob %x, which is not there", blob.GetDigest())
				}
			}
		}
	})
}

// FuzzServe: no request gets anything but whole blobs that are in the store.
func FuzzServe(f *testing.F) {
	x := []byte("x")
	dx := manifest.DigestOf(x)
	f.Add(record(f, &pb.FetchRequest{Want: []*pb.BlobInfo{{Digest: dx[:], Size: 1}}}))
	f.Add(record(f, &pb.FetchRequest{Want: []*pb.BlobInfo{{Digest: dx[:], Size: 1<<63 - 1}, nil}}, &pb.FetchRequest{}))
	e := edit(2000, 1)
	f.Add(record(f, &pb.FetchRequest{Want: []*pb.BlobInfo{infoOf(named{BlobRef: e.ref, base: e.bases[e.ref.Digest], begun: 7})}}, &pb.FetchRequest{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, s := fuzzPush(t, nil)
		s.add(x)
		s.add(e.old)
		s.add(e.content)
		ctx, cancel := context.WithCancel(t.Context())
		stream := &tape{ctx: ctx, rest: b}
		_ = (&server{push: p}).Fetch(&grpc.GenericServerStream[pb.FetchRequest, pb.FetchResponse]{ServerStream: stream})
		cancel()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		for _, m := range stream.sent {
			for _, piece := range m.(*pb.FetchResponse).GetPieces() {
				d, err := manifest.DigestFromBytes(piece.GetDigest())
				whole, held := s.blobs[d]
				off, n := piece.GetOffset(), int64(len(piece.GetData()))
				switch {
				case err != nil || !held || off < 0:
					t.Errorf("sent %v", piece)
				case piece.GetForm() != formWhole:
					if base, err := manifest.DigestFromBytes(piece.GetBase()); err != nil || s.blobs[base] == nil {
						t.Errorf("sent a delta against what is not here: %v", piece)
					}
				case off+n > int64(len(whole)) || string(whole[off:off+n]) != string(piece.GetData()):
					t.Errorf("sent %v", piece)
				}
			}
		}
	})
}

// FuzzFetch: no answer of a peer brings a false blob into the store, or ends a
// fetch as if all had come.
func FuzzFetch(f *testing.F) {
	x, y := []byte("x"), []byte("yy")
	dx, dy := manifest.DigestOf(x), manifest.DigestOf(y)
	px, py := &pb.Piece{Digest: dx[:], Size: 1, Data: x}, &pb.Piece{Digest: dy[:], Size: 2, Data: y}
	e := edit(2000, 1)
	packed := deltaOf(e, formDictionary, against(f, e.old, e.content))
	for _, messages := range [][]proto.Message{
		{&pb.FetchResponse{}, &pb.FetchResponse{Pieces: []*pb.Piece{px, packed, py}}},
		{&pb.FetchResponse{Pieces: []*pb.Piece{px, py, deltaOf(e, formCopies, []byte("rubbish"))}}, &pb.FetchResponse{Pieces: []*pb.Piece{packed}}},
		{&pb.FetchResponse{Pieces: []*pb.Piece{px, py}}},
		{&pb.FetchResponse{Pieces: []*pb.Piece{px}, Missing: [][]byte{dy[:]}}},
		{&pb.FetchResponse{Pieces: []*pb.Piece{{Digest: dx[:], Size: 1, Data: []byte("z")}, nil}}},
		{&pb.FetchResponse{Pieces: []*pb.Piece{px, px}}}, {&pb.FetchResponse{Missing: [][]byte{dx[:], dx[:], nil}}}, {&pb.FetchResponse{}},
		{&pb.FetchResponse{Pieces: []*pb.Piece{{Digest: dy[:], Size: 2, Data: y[:1]}}}},
		{&pb.FetchResponse{Pieces: []*pb.Piece{{Digest: dx[:], Size: 1, Broken: true}, py}}},
	} {
		f.Add(record(f, messages...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, s := fuzzPush(t, tapePeer{b})
		s.add(e.old)
		want := []manifest.BlobRef{{Digest: dx, Size: 1}, {Digest: dy, Size: 2}, e.ref}
		told := map[manifest.Digest]error{}
		err := p.Fetch(t.Context(), want, e.bases, nodes("n-evil"), func(d manifest.Digest, err error) { told[d] = err })
		wantWhole(t, s)
		for _, ref := range want {
			why, was := told[ref.Digest]
			if !was || (why == nil) != s.Has(ref.Digest) {
				t.Errorf("blob %s: told %v %v, has it %v", ref.Digest.Short(), was, why, s.Has(ref.Digest))
			}
		}
		if all := s.Has(dx) && s.Has(dy) && s.Has(e.ref.Digest); (err == nil) != all {
			t.Errorf("ended with %v, all here %v", err, all)
		}
	})
}

// FuzzSpread: no answer of a peer counts as its receipt but one for this very
// batch.
func FuzzSpread(f *testing.F) {
	receipt := func(batch uint64, store string) *pb.PushResponse {
		return &pb.PushResponse{Batch: batch, Of: &pb.PushResponse_Receipt{Receipt: &pb.BatchReceipt{Store: store}}}
	}
	e := edit(2000, 1)
	again := &pb.PushResponse{Batch: 1, Deltas: true, Of: &pb.PushResponse_Needs{Needs: &pb.Needs{Digests: [][]byte{e.ref.Digest[:]}}}}
	f.Add(record(f, &pb.PushResponse{Deltas: true}, again, again, receipt(1, "s-evil")))
	f.Add(record(f, receipt(1, "s-evil")))
	f.Add(record(f, &pb.PushResponse{}, receipt(7, "s-evil"), receipt(1, "")))
	f.Add(record(f, &pb.PushResponse{Batch: 1, Of: &pb.PushResponse_Refused{Refused: "no"}}))
	f.Add(record(f, &pb.PushResponse{Batch: 1, Of: &pb.PushResponse_Needs{Needs: &pb.Needs{Digests: [][]byte{nil, []byte("x")}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, s := fuzzPush(t, tapePeer{b})
		s.add(e.old)
		s.add(e.content)
		refs := []manifest.BlobRef{s.add([]byte("x")), e.ref}
		got, err := p.Spread(t.Context(), refs, e.bases, nodes("n-evil"), func(r []manifest.Receipt) bool { return len(r) == 2 })
		var first pb.PushResponse
		valid := false
		for in := (&tape{rest: b}); in.next(&first) == nil; {
			valid = valid || first.GetBatch() == 1 && first.GetReceipt().GetStore() != ""
		}
		for _, r := range got {
			if r.Node == "n-evil" && (!valid || r.Store == "") || r.Node != "n-evil" && r.Node != "n-a" {
				t.Errorf("receipt %+v", r)
			}
		}
		if err == nil && len(got) != 2 {
			t.Errorf("%d receipts and no error", len(got))
		}
	})
}
