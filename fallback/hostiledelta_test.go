package fallback

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/delta"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// deltaOf is a delta as a message, of any bytes.
func deltaOf(e edited, form uint32, data []byte) *pb.Piece {
	base := e.bases[e.ref.Digest]
	return &pb.Piece{Digest: e.ref.Digest[:], Size: e.ref.Size, Form: form, Base: base[:], Length: int64(len(data)), Data: data}
}

// against is the honest delta of small content.
func against(t testing.TB, old, content []byte) []byte {
	t.Helper()
	b, err := delta.NewCodec().Against(old, content)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What nobody sends who keeps to the protocol ends the stream.
func TestHostileDeltas(t *testing.T) {
	e := edit(2000, 1)
	data := against(t, e.old, e.content)
	for name, pieces := range map[string][]*pb.Piece{
		"a form that is none":       {deltaOf(e, 3, data)},
		"a delta of no length":      {deltaOf(e, formDictionary, nil)},
		"a negative length":         {changed(deltaOf(e, formDictionary, data), func(p *pb.Piece) { p.Length = -1 })},
		"a length like the content": {changed(deltaOf(e, formCopies, data), func(p *pb.Piece) { p.Length = 2000 })},
		"a giant length":            {changed(deltaOf(e, formCopies, data), func(p *pb.Piece) { p.Length = 1 << 60 })},
		"a base that is none":       {changed(deltaOf(e, formCopies, data), func(p *pb.Piece) { p.Base = []byte("base") })},
		"more than the length":      {changed(deltaOf(e, formDictionary, data), func(p *pb.Piece) { p.Length-- })},
		"a delta that begins late":  {changed(deltaOf(e, formDictionary, data), func(p *pb.Piece) { p.Offset = 1 })},
		"another form midway": {changed(deltaOf(e, formDictionary, data), func(p *pb.Piece) { p.Data = data[:5] }),
			changed(deltaOf(e, formCopies, data), func(p *pb.Piece) { p.Offset, p.Data = 5, data[5:] })},
		"another base midway": {changed(deltaOf(e, formDictionary, data), func(p *pb.Piece) { p.Data = data[:5] }),
			changed(deltaOf(e, formDictionary, data), func(p *pb.Piece) { p.Offset, p.Data, p.Base = 5, data[5:], e.ref.Digest[:] })},
		"content midway": {changed(deltaOf(e, formDictionary, data), func(p *pb.Piece) { p.Data = data[:5] }), pieceOf(e.content, 5, 10)},
	} {
		t.Run(name, func(t *testing.T) {
			net := newNet(t)
			n := net.node("n-a")
			n.store.add(e.old)
			s := net.raw("n-a")
			err := s.Send(&pb.PushRequest{Offer: offerOf(1, true, e.content), Pieces: pieces, End: 1})
			for err == nil {
				_, err = s.Recv()
			}
			if status.Code(err) != codes.InvalidArgument || n.store.Has(e.ref.Digest) {
				t.Errorf("the stream ended with %v", err)
			}
		})
	}
}

// A delta that makes something else, or too much, or is against what is not
// here, brings nothing in and gets no receipt: it is asked for whole, once.
func TestDeltasThatMakeSomethingElse(t *testing.T) {
	e := edit(2000, 2)
	bomb := against(t, e.old, bytes.Repeat(e.old, 500))
	copies := func(old, content []byte) []byte {
		var out bytes.Buffer
		if err := delta.NewCodec().EncodeOver(&out, bytes.NewReader(old), int64(len(old)), bytes.NewReader(content), int64(len(content))); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	foreign := manifest.DigestOf([]byte("foreign"))
	for name, p := range map[string]*pb.Piece{
		"rubbish":                 deltaOf(e, formDictionary, []byte("rubbish")),
		"rubbish of copies":       deltaOf(e, formCopies, []byte("rubbish")),
		"other content":           deltaOf(e, formDictionary, against(t, e.old, e.old)),
		"less":                    deltaOf(e, formDictionary, against(t, e.old, e.content[:1999])),
		"a bomb":                  deltaOf(e, formDictionary, bomb),
		"a bomb of copies":        deltaOf(e, formCopies, copies(e.old, bytes.Repeat(e.old, 500))),
		"copies of what is not":   deltaOf(e, formCopies, copies(bytes.Repeat(e.old, 9), bytes.Repeat(e.old, 9)[7000:9000])),
		"a base that is not here": changed(deltaOf(e, formDictionary, against(t, e.old, e.content)), func(p *pb.Piece) { p.Base = foreign[:] }),
		"cut off":                 deltaOf(e, formCopies, copies(e.old, e.content)[:8]),
	} {
		t.Run(name, func(t *testing.T) {
			net := newNet(t)
			n := net.node("n-a")
			n.store.add(e.old)
			s := net.raw("n-a")
			r := answerTo(t, s, &pb.PushRequest{Offer: offerOf(1, true, e.content), Pieces: []*pb.Piece{p}, End: 1})
			if d := r.GetNeeds().GetDigests(); len(d) != 1 || !bytes.Equal(d[0], e.ref.Digest[:]) || len(r.GetNeeds().GetOver()) != 0 {
				t.Fatalf("answer %v", r)
			}
			// The same again: it is not asked for a third time.
			if r := answerTo(t, s, &pb.PushRequest{Pieces: []*pb.Piece{p}, End: 1}); !strings.Contains(r.GetRefused(), "did not come") {
				t.Fatalf("answer %v", r)
			}
			if n.store.Has(e.ref.Digest) || n.arrivals.find(e.ref.Digest) != nil {
				t.Error("something was stored, or is still expected")
			}
			r = answerTo(t, s, &pb.PushRequest{Offer: offerOf(2, true, e.content), Pieces: []*pb.Piece{pieceOf(e.content, 0, 2000)}, End: 2})
			if r.GetReceipt().GetStore() != "s-n-a" || !n.store.holds([]manifest.BlobRef{e.ref}) {
				t.Errorf("whole: %v", r)
			}
		})
	}
}

// Large ones likewise; and a dictionary or content beyond the limit of its form.
func TestLargeDeltasThatMakeSomethingElse(t *testing.T) {
	e := edit(3<<20, 3)
	for name, p := range map[string]*pb.Piece{
		"rubbish":                  deltaOf(e, formCopies, []byte("rubbish")),
		"a dictionary of 3 MB":     deltaOf(e, formDictionary, []byte("rubbish")),
		"a base that is not there": changed(deltaOf(e, formCopies, []byte("rubbish")), func(p *pb.Piece) { p.Base = p.GetDigest() }),
	} {
		t.Run(name, func(t *testing.T) {
			net := newNet(t)
			n := net.node("n-a")
			n.store.add(e.old)
			s := net.raw("n-a")
			o := offerOf(1, false, e.content)
			base := e.bases[e.ref.Digest]
			o.Blobs[0].Base = base[:]
			if r := answerTo(t, s, &pb.PushRequest{Offer: o}); len(r.GetNeeds().GetOver()) != 1 || !r.GetDeltas() {
				t.Fatalf("answer %v", r)
			}
			if r := answerTo(t, s, &pb.PushRequest{Pieces: []*pb.Piece{p}, End: 1}); len(r.GetNeeds().GetDigests()) != 1 || n.store.Has(e.ref.Digest) {
				t.Fatalf("answer %v", r)
			}
		})
	}
}

// A receiver that claims what cannot be is cut off.
func TestHostileSavings(t *testing.T) {
	e := edit(200_000, 4)
	foreign := manifest.DigestOf([]byte("foreign"))
	d := e.ref.Digest[:]
	needs := func(f func(*pb.Needs)) *pb.PushResponse {
		n := &pb.Needs{Digests: [][]byte{d}}
		f(n)
		return &pb.PushResponse{Batch: 1, Of: &pb.PushResponse_Needs{Needs: n}}
	}
	begun := func(digest []byte, size, n int64) func(*pb.Needs) {
		return func(m *pb.Needs) { m.Begun = []*pb.BlobInfo{{Digest: digest, Size: size, Begun: n}} }
	}
	over := func(n *pb.Needs) { n.Over = [][]byte{d} }
	for name, tc := range map[string]struct {
		bases  manifest.Bases
		script []*pb.PushResponse
	}{
		"a base that was not offered":  {nil, []*pb.PushResponse{needs(over)}},
		"over what was not offered":    {e.bases, []*pb.PushResponse{needs(func(n *pb.Needs) { n.Over = [][]byte{foreign[:]} })}},
		"over rubbish":                 {e.bases, []*pb.PushResponse{needs(func(n *pb.Needs) { n.Over = [][]byte{[]byte("rubbish")} })}},
		"more savings than needs":      {e.bases, []*pb.PushResponse{needs(func(n *pb.Needs) { n.Over = [][]byte{d, d} })}},
		"the beginning of another":     {nil, []*pb.PushResponse{needs(begun(foreign[:], 10, 5))}},
		"a beginning of negative size": {nil, []*pb.PushResponse{needs(begun(d, 200_000, -1))}},
		"a beginning beyond the end":   {nil, []*pb.PushResponse{needs(begun(d, 200_000, 200_001))}},
		"asked for again for nothing":  {nil, []*pb.PushResponse{needs(func(*pb.Needs) {}), needs(func(*pb.Needs) {})}},
	} {
		t.Run(name, func(t *testing.T) {
			net := newNet(t)
			net.serve("n-evil", scripted{push: tc.script})
			a := net.node("n-a")
			a.store.add(e.old)
			a.store.add(e.content)
			_, err := a.Spread(testContext(t), []manifest.BlobRef{e.ref}, tc.bases, nodes("n-evil"), all(2))
			wantError[*ProtocolError](t, wantError[*ShortError](t, err).Failed["n-evil"])
		})
	}
}

// A source that answers with deltas of no use, with a rest of what has not begun,
// or with nothing but that it is at work, costs no more than itself.
func TestFetchHostileDeltas(t *testing.T) {
	small, large := edit(2000, 5), edit(3<<20, 6)
	for name, tc := range map[string]struct {
		e     edited
		named bool // the base
		with  func(e edited) []*pb.FetchResponse
	}{
		"rubbish": {small, true, func(e edited) []*pb.FetchResponse {
			p := deltaOf(e, formDictionary, []byte("rubbish"))
			return []*pb.FetchResponse{{Pieces: []*pb.Piece{p}}, {Pieces: []*pb.Piece{p}}, {Pieces: []*pb.Piece{p}}}
		}},
		"large rubbish": {large, true, func(e edited) []*pb.FetchResponse {
			p := deltaOf(e, formCopies, []byte("rubbish"))
			return []*pb.FetchResponse{{Pieces: []*pb.Piece{p}}, {Pieces: []*pb.Piece{p}}, {Pieces: []*pb.Piece{p}}}
		}},
		"a rest of what has not begun": {large, false, func(e edited) []*pb.FetchResponse {
			return []*pb.FetchResponse{{Pieces: []*pb.Piece{pieceOf(e.content, 2<<20, 2<<20+10)}}}
		}},
		"at work, and then gone": {small, false, func(edited) []*pb.FetchResponse { return words(1) }},
		"at work without end":    {small, true, func(edited) []*pb.FetchResponse { return words(maxBeats + 1) }},
	} {
		t.Run(name, timeless(func(t *testing.T) {
			net := newNet(t)
			a, good := net.node("n-a"), net.node("n-good")
			net.serve("n-evil", scripted{fetch: func(*pb.FetchRequest) []*pb.FetchResponse { return tc.with(tc.e) }})
			a.store.add(tc.e.old)
			good.store.add(tc.e.content)
			bases := tc.e.bases
			if !tc.named {
				bases = nil
			}
			refs := []manifest.BlobRef{tc.e.ref}
			if err := a.Fetch(testContext(t), refs, bases, nodes("n-evil"), nil); err == nil || a.store.Has(tc.e.ref.Digest) {
				t.Fatalf("from the evil one alone: %v", err)
			}
			if err := a.Fetch(testContext(t), refs, bases, nodes("n-evil", "n-good"), nil); err != nil || !a.store.holds(refs) {
				t.Error(err)
			}
		}))
	}
}
