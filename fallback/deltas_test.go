package fallback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/delta"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// edited is an old version and a new one in which some bytes are others.
type edited struct {
	old, content []byte
	bases        manifest.Bases
	ref          manifest.BlobRef
}

func edit(size int, seed uint64) edited {
	e := edited{old: content(1, size, seed)[0]}
	e.content = bytes.Clone(e.old)
	copy(e.content[size/2:], "edited")
	e.ref = manifest.BlobRef{Digest: manifest.DigestOf(e.content), Size: int64(size)}
	e.bases = manifest.Bases{e.ref.Digest: manifest.DigestOf(e.old)}
	return e
}

// meet has a node learn from its peers that they read deltas.
func meet(t *testing.T, a *testNode, ids ...string) {
	t.Helper()
	if _, err := a.Spread(testContext(t), a.store.addAll(content(1, 10, 99)), nil, nodes(ids...), all(len(ids)+1)); err != nil {
		t.Fatal(err)
	}
}

var deltaSizes = map[string]int{"eager": 8 << 10, "small": 200 << 10, "large": 5 << 20}

// To whom holds the old version only the difference is sent; to whom does not,
// all of it.
func TestSpreadSendsWhatDiffers(t *testing.T) {
	for name, size := range deltaSizes {
		t.Run(name, timeless(func(t *testing.T) {
			net := newNet(t)
			a, b, c := net.node("n-a"), net.node("n-b"), net.node("n-c")
			meet(t, a, "n-b", "n-c")
			before := a.Stats().Sent
			e := edit(size, 1)
			for _, n := range []*testNode{a, b} {
				n.store.add(e.old)
			}
			a.store.add(e.content)
			refs := []manifest.BlobRef{e.ref}
			if _, err := a.Spread(testContext(t), refs, e.bases, nodes("n-b"), all(2)); err != nil {
				t.Fatal(err)
			}
			sent := a.Stats().Sent
			if wire := sent.Wire - before.Wire; wire > 200 || sent.Deltas.Blobs != 1 || sent.Deltas.Bytes != int64(size) || sent.Deltas.Wire != wire {
				t.Errorf("sent to who holds the base: %+v", sent)
			}
			if got := b.Stats().Received; got.Deltas.Blobs != 1 || got.Deltas.Wire != sent.Deltas.Wire || !b.store.holds(refs) {
				t.Errorf("received %+v", got)
			}
			if _, err := a.Spread(testContext(t), refs, e.bases, nodes("n-c"), all(2)); err != nil {
				t.Fatal(err)
			}
			if !c.store.holds(refs) || c.Stats().Received.Blobs-c.Stats().Received.Deltas.Blobs != 2 {
				t.Errorf("who lacks the base received %+v", c.Stats().Received)
			}
		}))
	}
}

// A batch of many small files, some of which have an old version.
func TestSpreadMixesDeltasAndContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		a, b := net.node("n-a"), net.node("n-b")
		bases := manifest.Bases{}
		var refs []manifest.BlobRef
		for i := range uint64(200) {
			e := edit(6<<10, i)
			refs = append(refs, a.store.add(e.content))
			if i%2 == 0 {
				a.store.add(e.old)
				bases[e.ref.Digest] = e.bases[e.ref.Digest]
				if i%4 == 0 {
					b.store.add(e.old)
				}
			}
		}
		if _, err := a.Spread(testContext(t), refs, bases, nodes("n-b"), all(2)); err != nil {
			t.Fatal(err)
		}
		if s := a.Stats().Sent; !b.store.holds(refs) || s.Blobs != 200 || s.Deltas.Blobs != 50 || s.Deltas.Wire > 50*100 {
			t.Errorf("%+v", s)
		}
	})
}

func TestFetchBringsWhatDiffers(t *testing.T) {
	for name, size := range deltaSizes {
		t.Run(name, timeless(func(t *testing.T) {
			net := newNet(t)
			a, b, c := net.node("n-a"), net.node("n-b"), net.node("n-c")
			e := edit(size, 2)
			a.store.add(e.old)
			b.store.add(e.old)
			b.store.add(e.content)
			refs := []manifest.BlobRef{e.ref}
			if err := a.Fetch(testContext(t), refs, e.bases, nodes("n-b"), nil); err != nil {
				t.Fatal(err)
			}
			if s := a.Stats().Fetched; !a.store.holds(refs) || s.Deltas.Blobs != 1 || s.Wire > 200 || b.Stats().Served != s {
				t.Errorf("fetched %+v, served %+v", s, b.Stats().Served)
			}
			// Neither who lacks the base nor from whom lacks it.
			if err := c.Fetch(testContext(t), refs, e.bases, nodes("n-b"), nil); err != nil {
				t.Fatal(err)
			}
			d := net.node("n-d")
			d.store.add(e.old)
			c.store.mu.Lock()
			delete(c.store.blobs, e.bases[e.ref.Digest])
			c.store.mu.Unlock()
			if err := d.Fetch(testContext(t), refs, e.bases, nodes("n-c"), nil); err != nil {
				t.Fatal(err)
			}
			for _, n := range []*testNode{c, d} {
				if s := n.Stats().Fetched; !n.store.holds(refs) || s.Deltas.Blobs != 0 || s.Wire != int64(size) {
					t.Errorf("%+v", s)
				}
			}
		}))
	}
}

// A base that is not what it is called makes no content, costs no receipt and
// no content: it comes whole.
func TestPromise_NoLoss_ADeltaAgainstAnotherBase(t *testing.T) {
	for name, size := range deltaSizes {
		t.Run(name, timeless(func(t *testing.T) {
			net := newNet(t)
			a, b := net.node("n-a"), net.node("n-b")
			meet(t, a, "n-b")
			meet(t, b, "n-a")
			e := edit(size, 3)
			a.store.add(e.old)
			a.store.add(e.content)
			rotten := bytes.Repeat([]byte("rotten"), size/6+1)[:size]
			spoil := func() {
				b.store.mu.Lock()
				defer b.store.mu.Unlock()
				delete(b.store.blobs, e.ref.Digest)
				b.store.blobs[e.bases[e.ref.Digest]] = rotten
			}
			refs := []manifest.BlobRef{e.ref}
			spoil()
			if _, err := a.Spread(testContext(t), refs, e.bases, nodes("n-b"), all(2)); err != nil {
				t.Fatal(err)
			}
			if !b.store.holds(refs) || !bytes.Equal(b.store.blobs[e.ref.Digest], e.content) || b.Stats().Useless != 1 {
				t.Errorf("pushed: %+v", b.Stats())
			}
			spoil()
			if err := b.Fetch(testContext(t), refs, e.bases, nodes("n-a"), nil); err != nil {
				t.Fatal(err)
			}
			if !b.store.holds(refs) || !bytes.Equal(b.store.blobs[e.ref.Digest], e.content) || b.Stats().Useless != 2 {
				t.Errorf("fetched: %+v", b.Stats())
			}
		}))
	}
}

// vintage is a peer of a version that knows nothing of deltas: what it does not
// know of a message it neither reads nor says.
type vintage struct {
	*server
	t *testing.T
}

type vintageStream struct {
	grpc.ServerStream
	t *testing.T
}

func (v vintage) Push(s grpc.BidiStreamingServer[pb.PushRequest, pb.PushResponse]) error {
	return v.server.Push(&grpc.GenericServerStream[pb.PushRequest, pb.PushResponse]{ServerStream: vintageStream{s, v.t}})
}

func (v vintage) Fetch(s grpc.BidiStreamingServer[pb.FetchRequest, pb.FetchResponse]) error {
	return v.server.Fetch(&grpc.GenericServerStream[pb.FetchRequest, pb.FetchResponse]{ServerStream: vintageStream{s, v.t}})
}

func (s vintageStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	switch m := m.(type) {
	case *pb.PushRequest:
		for _, p := range m.GetPieces() {
			if p.GetForm() != formWhole {
				s.t.Error("a delta to who does not know any")
			}
		}
		for _, b := range m.GetOffer().GetBlobs() {
			b.Base, b.Begun = nil, 0
		}
	case *pb.FetchRequest:
		for _, b := range m.GetWant() {
			b.Base, b.Begun = nil, 0
		}
	}
	return err
}

func (s vintageStream) SendMsg(m any) error {
	if r, ok := m.(*pb.PushResponse); ok {
		r = proto.Clone(r).(*pb.PushResponse)
		r.Deltas = false
		if n := r.GetNeeds(); n != nil {
			n.Over, n.Begun = nil, nil
		}
		m = r
	}
	return s.ServerStream.SendMsg(m)
}

func TestAPeerThatKnowsNoDeltas(t *testing.T) {
	for name, size := range deltaSizes {
		t.Run(name, timeless(func(t *testing.T) {
			net := newNet(t)
			a := net.node("n-a")
			s := newMemStore("s-old")
			old := NewPush("n-old", s, net, nil)
			defer old.Close()
			net.serve("n-old", vintage{&server{push: old}, t})
			meet(t, a, "n-old")
			e := edit(size, 4)
			a.store.add(e.old)
			s.add(e.old)
			a.store.add(e.content)
			refs := []manifest.BlobRef{e.ref}
			if _, err := a.Spread(testContext(t), refs, e.bases, nodes("n-old"), all(2)); err != nil || !s.holds(refs) {
				t.Fatal(err)
			}
			delete(a.store.blobs, e.ref.Digest)
			if err := a.Fetch(testContext(t), refs, e.bases, nodes("n-old"), nil); err != nil || !a.store.holds(refs) {
				t.Fatal(err)
			}
			if n := a.Stats().Fetched.Deltas.Blobs + a.Stats().Sent.Deltas.Blobs; n != 0 {
				t.Errorf("%d deltas", n)
			}
		}))
	}
}

// slowAt reads an old version slowly.
type slowAt struct {
	Reader
	left *atomic.Int64
	wait time.Duration
}

func (s slowAt) ReadAt(b []byte, off int64) (int, error) {
	if s.left.Add(-1) >= 0 {
		<-time.After(s.wait)
	}
	return s.Reader.ReadAt(b, off)
}

// Making something of a delta, or making it, may take longer than a peer that
// says nothing is waited for.
func TestADeltaMayTakeItsTime(t *testing.T) {
	for _, where := range []cluster.NodeID{"n-a", "n-b"} {
		t.Run(string(where), timeless(func(t *testing.T) {
			net := newNet(t)
			a, b := net.node("n-a", withLimits(short())), net.node("n-b", withLimits(short()))
			e := edit(5<<20, 7)
			a.store.add(e.old)
			a.store.add(e.content)
			b.store.add(e.old)
			slow := new(atomic.Int64)
			map[cluster.NodeID]*testNode{"n-a": a, "n-b": b}[where].store.onOpen = func(d manifest.Digest, r Reader) Reader {
				if d == e.ref.Digest {
					return r
				}
				slow.Store(4)
				return slowAt{r, slow, short().stall / 3}
			}
			refs := []manifest.BlobRef{e.ref}
			if _, err := a.Spread(testContext(t), refs, e.bases, nodes("n-b"), all(2)); err != nil {
				t.Fatal(err)
			}
			delete(b.store.blobs, e.ref.Digest)
			a.deltas.forgetAll()
			if err := b.Fetch(testContext(t), refs, e.bases, nodes("n-a"), nil); err != nil {
				t.Fatal(err)
			}
			if s := b.Stats(); s.Received.Deltas.Blobs != 1 || s.Fetched.Deltas.Blobs != 1 {
				t.Errorf("%+v", s)
			}
		}))
	}
}

func TestDeltasAreMadeOnceAndForgotten(t *testing.T) {
	s := newMemStore("s-a")
	d := newDeltas(s)
	d.dir = t.TempDir()
	defer d.end()
	opened := new(atomic.Int64)
	s.onOpen = func(_ manifest.Digest, r Reader) Reader { opened.Add(1); return r }
	e := edit(5<<20, 8)
	copy(e.content[1<<20:], content(1, 2<<20, 9)[0]) // too much for memory
	e.ref = s.add(e.content)
	s.add(e.old)
	base := manifest.DigestOf(e.old)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d.get(ctx, e.ref, base) != nil || d.find(t.Context(), e.ref, base) != nil {
		t.Fatal("somebody who has given up got a delta")
	}
	opened.Store(0)
	var all [4]*made
	got := make(chan struct{})
	for i := range all {
		go func() { all[i] = d.get(t.Context(), e.ref, base); got <- struct{}{} }()
	}
	for range all {
		<-got
	}
	if opened.Load() != 2 || all[0] == nil || all[0].data.file == nil || d.disk != all[0].data.size {
		t.Fatalf("opened %d times, %+v", opened.Load(), all[0])
	}
	if files, err := os.ReadDir(d.dir); err != nil || len(files) > 0 {
		t.Errorf("a file with a name: %v %v", files, err)
	}
	d.forgetAll()
	if d.find(t.Context(), e.ref, base) != nil || d.disk != 0 || d.memory != 0 || d.recent.Len() != 0 {
		t.Errorf("it was not forgotten: %d, %d", d.disk, d.memory)
	}
	if b, err := io.ReadAll(all[0].data.reader()); err != nil || int64(len(b)) != all[0].data.size {
		t.Errorf("gone under the hands of who uses it: %v", err)
	}
	for _, m := range all {
		d.release(m)
	}
	if _, err := all[0].data.file.Stat(); err == nil {
		t.Error("the file is open still")
	}

	// What is no smaller is no delta, and that is remembered.
	other := s.add(content(1, 5<<20, 10)[0])
	opened.Store(0)
	for range 3 {
		if d.get(t.Context(), other, base) != nil {
			t.Error("a delta that saves nothing")
		}
	}
	if opened.Load() != 2 {
		t.Errorf("it was tried %d times", opened.Load()/2)
	}
	// What is kept is bounded.
	d.most.memory = 1 << 20
	for i := range uint64(60) {
		e := edit(60_000, 100+i)
		copy(e.content, content(1, 40_000, 1000+i)[0])
		ref := s.add(e.content)
		s.add(e.old)
		d.release(d.get(t.Context(), ref, manifest.DigestOf(e.old)))
	}
	if d.memory > d.most.memory || d.memory < d.most.memory/2 {
		t.Errorf("%d bytes are kept", d.memory)
	}
}

func TestFormOf(t *testing.T) {
	for _, c := range []struct {
		size, base int64
		want       uint32
	}{
		{8000, 8100, formDictionary}, {deltaLeast - 1, 8000, formWhole}, {8000, 7, formWhole}, {8000, 900, formWhole},
		{delta.SmallLimit, delta.DictLimit, formDictionary}, {delta.SmallLimit + 1, delta.DictLimit, formCopies},
		{delta.SmallLimit, delta.DictLimit + 1, formCopies}, {1 << 30, 1 << 26, formWhole}, {1 << 26, 1 << 30, formWhole}, {1 << 40, 1 << 40, formCopies},
	} {
		if got := formOf(c.size, c.base); got != c.want {
			t.Errorf("%d bytes for %d: form %d, want %d", c.base, c.size, got, c.want)
		}
	}
}

func TestSpool(t *testing.T) {
	for _, size := range []int{0, 1, spoolMemory, spoolMemory + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			b := content(1, size, 11)[0]
			s := &spool{dir: t.TempDir(), most: int64(size)}
			defer s.Close()
			for rest := b; len(rest) > 0; {
				n, err := s.Write(rest[:min(len(rest), 300_000)])
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if _, err := s.Write([]byte("x")); !errors.Is(err, errTooLong) {
				t.Errorf("too much: %v", err)
			}
			if got, err := io.ReadAll(s.reader()); err != nil || !bytes.Equal(got, b) || (s.file != nil) != (size > spoolMemory) {
				t.Errorf("%v, %d bytes, in a file: %v", err, len(got), s.file != nil)
			}
		})
	}
}

// What has little in common with what it replaces goes over a share like other
// content; what differs by little is pushed, for that is less than all would read.
func TestAShareCarriesWhatIsNoDelta(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, c := three(t)
		near, far := edit(5<<20, 20), edit(5<<20, 21)
		far.content = content(1, 5<<20, 22)[0]
		far.ref.Digest = manifest.DigestOf(far.content)
		bases := manifest.Bases{near.ref.Digest: manifest.DigestOf(near.old), far.ref.Digest: manifest.DigestOf(far.old)}
		for _, s := range []*sharer{a, b, c} {
			s.store.add(near.old)
			s.store.add(far.old)
		}
		refs := []manifest.BlobRef{a.store.add(near.content), a.store.add(far.content)}
		if _, err := a.Chain.Spread(testContext(t), refs, bases, nodes("n-b", "n-c"), nil); err != nil {
			t.Fatal(err)
		}
		if !b.store.holds(refs) || !c.store.holds(refs) {
			t.Error("a receipt was given for what is not durable")
		}
		if s := a.Stats().Sent; a.share.Status().Laid.Bytes != 5<<20 || s.Deltas.Blobs != 2 || s.Wire > 1000 {
			t.Errorf("laid %+v, sent %+v", a.share.Status().Laid, s)
		}
	})
}
