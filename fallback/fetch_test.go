package fallback

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"pgregory.net/rapid"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// outcomes collects what done was called with, and fails the test when it is
// called twice for a digest or by two goroutines.
type outcomes struct {
	t    *testing.T
	busy sync.Mutex
	m    map[manifest.Digest]error
}

func collect(t *testing.T) *outcomes { return &outcomes{t: t, m: map[manifest.Digest]error{}} }

func (o *outcomes) done(d manifest.Digest, err error) {
	if !o.busy.TryLock() {
		o.t.Error("done is called by two goroutines at once")
		return
	}
	defer o.busy.Unlock()
	if _, twice := o.m[d]; twice {
		o.t.Errorf("done twice for %s", d.Short())
	}
	o.m[d] = err
}

func TestFetchFromSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		data := append(content(2000, 6000, 30), content(4, 3<<20, 31)...)
		a := net.node("n-a")
		var refs []manifest.BlobRef
		sources := []*testNode{net.node("n-b"), net.node("n-c"), net.node("n-d")}
		for _, s := range sources {
			refs = s.store.addAll(data)
		}
		o := collect(t)
		if err := a.Fetch(testContext(t), append(refs, refs[:10]...), nil, nodes("n-b", "n-c", "n-a", "n-d"), o.done); err != nil {
			t.Fatal(err)
		}
		if len(o.m) != len(refs) || !a.store.holds(refs) {
			t.Errorf("%d of %d done", len(o.m), len(refs))
		}
		for d, err := range o.m {
			if err != nil {
				t.Errorf("%s: %v", d.Short(), err)
			}
		}
		for _, s := range sources {
			if s.Stats().Served.Blobs == 0 {
				t.Errorf("%s served nothing", s.self)
			}
			if n := s.messages.Load(); n > 60 {
				t.Errorf("%s got %d requests", s.self, n)
			}
		}
		if s := a.Stats(); s.Fetched.Blobs != int64(len(refs)) {
			t.Errorf("stats %+v", s)
		}
		// Once more: nobody is asked.
		before := sources[0].messages.Load()
		if err := a.Fetch(testContext(t), refs, nil, nodes("n-b"), nil); err != nil {
			t.Fatal(err)
		}
		if sources[0].messages.Load() != before {
			t.Error("what is here was asked for")
		}
	})
}

// A lone blob is asked of one node, not of all.
func TestFetchOneBlobAsksOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		a := net.node("n-a")
		var refs []manifest.BlobRef
		var sources []*testNode
		for i := range 5 {
			n := net.node(cluster.NodeID(fmt.Sprintf("n-%d", i)))
			refs = n.store.addAll(content(1, 5000, 32))
			sources = append(sources, n)
		}
		if err := a.Fetch(testContext(t), refs, nil, nodes("n-0", "n-1", "n-2", "n-3", "n-4"), nil); err != nil {
			t.Fatal(err)
		}
		var asked int64
		for _, s := range sources {
			asked += s.messages.Load()
		}
		if asked != 1 {
			t.Errorf("%d requests", asked)
		}
	})
}

// Down, empty, mute, hostile and damaged nodes are passed over, each alone and
// all of them together.
func TestFetchFailsOver(t *testing.T) {
	bad := nodes("n-down", "n-empty", "n-mute", "n-evil", "n-forger", "n-damaged")
	for _, from := range append([][]cluster.NodeID{bad}, slicesOfOne(bad)...) {
		t.Run(fmt.Sprint(from), timeless(func(t *testing.T) {
			net := newNet(t)
			l := defaultLimits()
			l.hedge = 100 * time.Millisecond
			a := net.node("n-a", withLimits(l))
			good := net.node("n-good")
			data := content(100, 2000, 33)
			refs := good.store.addAll(data)
			net.node("n-empty")
			net.serve("n-mute", mute{})
			net.serve("n-evil", scripted{fetch: func(*pb.FetchRequest) []*pb.FetchResponse {
				return []*pb.FetchResponse{{Pieces: []*pb.Piece{pieceOf([]byte("unasked"), 0, 7)}}}
			}})
			net.serve("n-forger", scripted{fetch: func(r *pb.FetchRequest) (out []*pb.FetchResponse) {
				for _, w := range r.GetWant() {
					out = append(out, &pb.FetchResponse{Pieces: []*pb.Piece{{Digest: w.GetDigest(), Size: w.GetSize(), Data: make([]byte, w.GetSize())}}})
				}
				return out
			}})
			damaged := net.node("n-damaged")
			damaged.store.addAll(data)
			damaged.store.onOpen = func(manifest.Digest, Reader) Reader { return failingReader{} }

			o := collect(t)
			if err := a.Fetch(testContext(t), refs, nil, append(nodes("n-good"), from...), o.done); err != nil {
				t.Fatal(err)
			}
			if !a.store.holds(refs) || len(o.m) != len(refs) {
				t.Error("not all came")
			}
		}))
	}
}

// A node that was passed over for being slow is asked again when nobody else
// has the blob.
func TestFetchComesBackToASlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		l := defaultLimits()
		l.hedge = 20 * time.Millisecond
		a, slow := net.node("n-a", withLimits(l)), net.node("n-slow")
		net.node("n-empty")
		net.serve("n-mute", mute{})
		refs := slow.store.addAll(content(1, 100, 45))
		asked := make(chan struct{}, 10)
		slow.store.onOpen = func(_ manifest.Digest, r Reader) Reader {
			asked <- struct{}{}
			if len(asked) == 1 {
				<-time.After(10 * l.hedge)
			}
			return r
		}
		l.stall = time.Second // of the mute one, once it is patient
		a.limits = l
		if err := a.Fetch(testContext(t), refs, nil, nodes("n-slow", "n-empty", "n-mute"), nil); err != nil {
			t.Fatal(err)
		}
		if len(asked) < 2 {
			t.Errorf("asked %d times: it was not passed over", len(asked))
		}
	})
}

func slicesOfOne(ids []cluster.NodeID) (out [][]cluster.NodeID) {
	for _, id := range ids {
		out = append(out, []cluster.NodeID{id})
	}
	return out
}

type failingReader struct{ failing }

func (failingReader) Close() error { return nil }

func (r failingReader) ReadAt(b []byte, _ int64) (int, error) { return r.Read(b) }

func TestFetchHostileAnswers(t *testing.T) {
	want := []byte(strings.Repeat("w", 1000))
	other := []byte(strings.Repeat("o", 1000))
	digest := manifest.DigestOf(want)
	for name, script := range map[string][]*pb.FetchResponse{
		"words without end":       words(maxBeats + 1),
		"a never-ending blob":     {{Pieces: []*pb.Piece{pieceOf(want, 0, 900), changed(pieceOf(want, 900, 1000), func(p *pb.Piece) { p.Data = make([]byte, 500) })}}},
		"a giant size":            {{Pieces: []*pb.Piece{changed(pieceOf(want, 0, 1000), func(p *pb.Piece) { p.Size = 1 << 50 })}}},
		"out of order":            {{Pieces: []*pb.Piece{pieceOf(want, 500, 1000), pieceOf(want, 0, 500)}}},
		"unasked missing":         {{Missing: [][]byte{make([]byte, 32)}}},
		"missing within its blob": {{Pieces: []*pb.Piece{pieceOf(want, 0, 500)}}, {Missing: [][]byte{digest[:]}}},
		"interleaved":             {{Pieces: []*pb.Piece{pieceOf(want, 0, 500), pieceOf(other, 0, 500)}}},
	} {
		t.Run(name, timeless(func(t *testing.T) {
			net := newNet(t)
			a := net.node("n-a", withLimits(short()))
			net.serve("n-evil", scripted{fetch: func(*pb.FetchRequest) []*pb.FetchResponse { return script }})
			o := collect(t)
			err := a.Fetch(testContext(t), []manifest.BlobRef{{Digest: digest, Size: 1000}}, nil, nodes("n-evil"), o.done)
			wantError[*IncompleteError](t, err)
			wantError[*ProtocolError](t, o.m[digest])
			if a.store.Has(digest) {
				t.Error("stored")
			}
		}))
	}
}

func TestFetchTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		a := net.node("n-a")
		net.node("n-b")
		ref := manifest.BlobRef{Digest: manifest.DigestOf([]byte("nowhere")), Size: 7}
		o := collect(t)
		err := a.Fetch(testContext(t), []manifest.BlobRef{ref}, nil, nodes("n-b"), o.done)
		if e := wantError[*IncompleteError](t, err); e.Missing != 1 || e.Wanted != 1 {
			t.Errorf("%+v", e)
		}
		if e := wantError[*MissingError](t, o.m[ref.Digest]); e.Peer != "n-b" {
			t.Errorf("blames %s", e.Peer)
		}
		if err := a.Fetch(testContext(t), []manifest.BlobRef{ref}, nil, nodes("n-a"), nil); !errors.Is(err, ErrNoSource) {
			t.Errorf("from nobody: %v", err)
		}
	})
}

// Without room it is not tried again elsewhere.
func TestFetchWithoutRoom(t *testing.T) {
	net := newNet(t)
	a, b, c := net.node("n-a"), net.node("n-b"), net.node("n-c")
	refs := b.store.addAll(content(1, 100, 34))
	c.store.addAll(content(1, 100, 34))
	a.store.onPut = func(manifest.BlobRef) error { return fmt.Errorf("put: %w", blob.ErrNoRoom) }
	if err := a.Fetch(testContext(t), refs, nil, nodes("n-b", "n-c"), nil); !errors.Is(err, blob.ErrNoRoom) {
		t.Errorf("%v", err)
	}
	if n := b.messages.Load() + c.messages.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// source is a peer that tells when it is asked, and then does not answer.
type source struct {
	pb.UnimplementedContentServer
	asked chan struct{}
}

func (f source) Fetch(s grpc.BidiStreamingServer[pb.FetchRequest, pb.FetchResponse]) error {
	if _, err := s.Recv(); err != nil {
		return nil //nolint:nilerr // opened and not asked
	}
	close(f.asked)
	<-s.Context().Done()
	return nil
}

func TestFetchCancelled(t *testing.T) {
	net := newNet(t)
	mute := source{asked: make(chan struct{})}
	net.serve("n-mute", mute)
	a := net.node("n-a")
	refs := newMemStore("").addAll(content(3, 100, 35))
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-mute.asked; cancel() }()
	o := collect(t)
	if err := a.Fetch(ctx, refs, nil, nodes("n-mute"), o.done); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, r := range refs {
		if !errors.Is(o.m[r.Digest], context.Canceled) {
			t.Errorf("done with %v", o.m[r.Digest])
		}
	}
}

// What a peer is pushing here right now is waited for, not fetched as well.
func TestFetchWaitsForAPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		a := net.node("n-a")
		other := source{asked: make(chan struct{})}
		net.serve("n-b", other)
		data := []byte(strings.Repeat("p", 1000))
		ref := manifest.BlobRef{Digest: manifest.DigestOf(data), Size: 1000}
		s := net.raw("n-a")
		if r := answerTo(t, s, &pb.PushRequest{Offer: offerOf(1, false, data)}); r.GetNeeds() == nil {
			t.Fatalf("answer %v", r)
		}
		fetched := make(chan error, 1)
		go func() { fetched <- a.Fetch(testContext(t), []manifest.BlobRef{ref}, nil, nodes("n-b"), nil) }()
		for from := 0; from < 1000; from += 100 {
			if err := s.Send(&pb.PushRequest{Pieces: []*pb.Piece{pieceOf(data, from, from+100)}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-fetched; err != nil {
			t.Fatal(err)
		}
		select {
		case <-other.asked:
			t.Error("it was fetched as well")
		default:
		}
		a.store.mu.Lock()
		defer a.store.mu.Unlock()
		if n := a.store.puts[ref.Digest]; n != 1 {
			t.Errorf("stored %d times", n)
		}
	})
}

// A push that is quiet, or fails, is not waited for.
func TestFetchDoesNotWaitForAQuietPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fails := range []bool{false, true} {
			net := newNet(t)
			l := defaultLimits()
			l.hedge = 50 * time.Millisecond
			if fails {
				l.hedge = time.Hour
			}
			a, b := net.node("n-a", withLimits(l)), net.node("n-b")
			data := []byte(strings.Repeat("q", 1000))
			ref := b.store.add(data)
			s := net.raw("n-a")
			if r := answerTo(t, s, &pb.PushRequest{Offer: offerOf(1, false, data)}); r.GetNeeds() == nil {
				t.Fatalf("answer %v", r)
			}
			fetched := make(chan error, 1)
			go func() { fetched <- a.Fetch(testContext(t), []manifest.BlobRef{ref}, nil, nodes("n-b"), nil) }()
			if fails {
				if err := s.CloseSend(); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-fetched; err != nil {
				t.Errorf("push fails %t: %v", fails, err)
			}
		}
	})
}

// Two fetches of the same blobs share one transfer.
func TestFetchesShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		a, b := net.node("n-a"), net.node("n-b")
		refs := b.store.addAll(content(50, 3000, 36))
		begun, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		a.store.onPut = func(manifest.BlobRef) error {
			once.Do(func() { close(begun); <-release })
			return nil
		}
		errs := make(chan error, 2)
		go func() { errs <- a.Fetch(testContext(t), refs, nil, nodes("n-b"), nil) }()
		<-begun
		go func() { errs <- a.Fetch(testContext(t), refs[:10], nil, nodes("n-b"), nil) }()
		close(release)
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if !a.store.holds(refs) {
			t.Error("not all came")
		}
	})
}

// Wherever the blobs are, and whoever fails, what some healthy node holds
// comes and nothing else does.
func TestFetchProperty(t *testing.T) {
	data := append(content(40, 3000, 37), content(3, 400_000, 38)...)
	refs := newMemStore("").addAll(data)
	ids := nodes("n-b", "n-c", "n-d")
	rapid.Check(t, func(rt *rapid.T) {
		net := newNet(rt)
		a := net.node("n-a")
		available := map[manifest.Digest]bool{}
		for _, id := range ids {
			n := net.node(id)
			healthy := rapid.IntRange(0, 3).Draw(rt, string(id)+" is healthy") > 0
			if !healthy {
				n.store.onOpen = func(manifest.Digest, Reader) Reader { return failingReader{} }
			}
			for i, b := range data {
				if rapid.Bool().Draw(rt, fmt.Sprintf("%s holds %d", id, i)) {
					d := n.store.add(b).Digest
					available[d] = available[d] || healthy
				}
			}
		}
		o := collect(t)
		err := a.Fetch(context.Background(), refs, nil, ids, o.done)
		for _, r := range refs {
			if (o.m[r.Digest] == nil) != available[r.Digest] || a.store.Has(r.Digest) != available[r.Digest] {
				rt.Fatalf("%s: held by a healthy node %t, done with %v", r.Digest.Short(), available[r.Digest], o.m[r.Digest])
			}
		}
		if (err == nil) != (len(refs) == countTrue(available)) {
			rt.Fatalf("fetch: %v", err)
		}
	})
}

func countTrue(m map[manifest.Digest]bool) (n int) {
	for _, v := range m {
		if v {
			n++
		}
	}
	return n
}

// The real store does the same.
func TestWithBlobStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		open := func(id cluster.NodeID) (*Push, *blob.Store) {
			s, err := blob.Open(t.TempDir(), blob.Options{})
			if err != nil {
				t.Fatal(err)
			}
			p := NewPush(id, StoreOf(s), net, nil)
			net.serve(id, &server{push: p})
			t.Cleanup(func() {
				if err := errors.Join(p.Close(), s.Close()); err != nil {
					t.Error(err)
				}
			})
			return p, s
		}
		a, as := open("n-a")
		_, bs := open("n-b")
		c, cs := open("n-c")
		var refs []manifest.BlobRef
		for _, b := range append(content(500, 3000, 40), content(3, 2<<20, 41)...) {
			ref, err := as.PutBytes(b)
			if err != nil {
				t.Fatal(err)
			}
			refs = append(refs, ref)
		}
		receipts, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range receipts {
			if r.Node == "n-b" && r.Store != bs.ID() {
				t.Errorf("receipt %v, the store is %s", r, bs.ID())
			}
		}
		if err := c.Fetch(testContext(t), refs, nil, nodes("n-b"), nil); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*blob.Store{bs, cs} {
			n := 0
			if err := s.Verify(testContext(t), func(ref manifest.BlobRef, err error) {
				if n++; err != nil {
					t.Error(ref, err)
				}
			}); err != nil || n != len(refs) {
				t.Errorf("%d blobs, %v", n, err)
			}
		}
	})
}

// words are messages with nothing in them.
func words(n int) []*pb.FetchResponse {
	out := make([]*pb.FetchResponse, n)
	for i := range out {
		out[i] = &pb.FetchResponse{}
	}
	return out
}
