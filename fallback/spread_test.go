package fallback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func all(n int) func([]manifest.Receipt) bool {
	return func(r []manifest.Receipt) bool { return len(r) >= n }
}

// One small blob costs one message and one flush.
func TestSpreadOneSmallBlob(t *testing.T) {
	net := newNet(t)
	a, b := net.node("n-a"), net.node("n-b")
	refs := a.store.addAll(content(1, 6000, 1))
	receipts, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2))
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, r := range receipts {
		have[r.Node] = r.Store
	}
	if len(have) != 2 || have["n-a"] != "s-n-a" || have["n-b"] != "s-n-b" {
		t.Errorf("receipts %v", receipts)
	}
	if !b.store.holds(refs) || !a.store.holds(refs) {
		t.Error("a receipt was given for what is not durable")
	}
	if n := b.messages.Load(); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
	if n := b.store.flushCount(); n != 1 {
		t.Errorf("%d flushes, want 1", n)
	}
	// The stream is kept: a second one is one more message.
	if _, err := a.Spread(testContext(t), a.store.addAll(content(1, 10, 2)), nil, nodes("n-b"), all(2)); err != nil {
		t.Fatal(err)
	}
	if n := b.messages.Load(); n != 2 {
		t.Errorf("%d messages after a second blob, want 2", n)
	}
}

// Ten thousand files are not ten thousand messages, let alone round trips.
func TestSpreadManySmallBlobs(t *testing.T) {
	net := newNet(t)
	a, b, c := net.node("n-a"), net.node("n-b"), net.node("n-c")
	refs := a.store.addAll(content(10_000, 6<<10, 3))
	receipts, err := a.Spread(testContext(t), refs, nil, nodes("n-b", "n-c"), all(3))
	if err != nil || len(receipts) != 3 {
		t.Fatalf("%d receipts, %v", len(receipts), err)
	}
	for _, n := range []*testNode{b, c} {
		if !n.store.holds(refs) {
			t.Error("not all is durable")
		}
		if m := n.messages.Load(); m > 400 {
			t.Errorf("%d messages for 60 MB", m)
		}
		if f := n.store.flushCount(); f > 12 {
			t.Errorf("%d flushes", f)
		}
	}
	if s := a.Stats(); s.Sent.Blobs != 20_000 || s.Sent.Bytes != 20_000*6<<10 {
		t.Errorf("stats %+v", s)
	}
	if s := b.Stats(); s.Received.Blobs != 10_000 {
		t.Errorf("stats there %+v", s)
	}
}

func TestSpreadMixedSizes(t *testing.T) {
	net := newNet(t)
	a, b := net.node("n-a"), net.node("n-b")
	var refs []manifest.BlobRef
	for i, size := range []int{0, 1, maxPiece - 1, maxPiece, maxPiece + 1, smallBlob, smallBlob + 1, 5<<20 + 17, 2 * maxPiece} {
		refs = append(refs, a.store.addAll(content(1, size, uint64(i)))...)
	}
	if _, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2)); err != nil {
		t.Fatal(err)
	}
	if !b.store.holds(refs) {
		t.Error("not all is durable")
	}
}

func TestSpreadSendsOnlyWhatIsNeeded(t *testing.T) {
	net := newNet(t)
	a, b := net.node("n-a"), net.node("n-b")
	data := content(100, 10_000, 4)
	refs := a.store.addAll(data)
	b.store.addAll(data[:60])
	if _, err := a.Spread(testContext(t), append(refs, refs...), nil, nodes("n-b", "n-b", "n-a"), all(2)); err != nil {
		t.Fatal(err)
	}
	if s := a.Stats(); s.Sent.Blobs != 40 || s.Skipped != 60 {
		t.Errorf("stats %+v", s)
	}
	if !b.store.holds(refs) {
		t.Error("what the peer had already must be durable too")
	}
	// All of it is there: an offer, a flush, a receipt.
	before := b.messages.Load()
	if _, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2)); err != nil {
		t.Fatal(err)
	}
	if n := b.messages.Load() - before; n != 1 {
		t.Errorf("%d messages for nothing, want 1", n)
	}
}

func TestSpreadNothing(t *testing.T) {
	a := newNet(t).node("n-a")
	if r, err := a.Spread(testContext(t), nil, nil, nodes("n-b"), all(1)); err != nil || len(r) != 0 {
		t.Errorf("%v, %v", r, err)
	}
	ref := manifest.BlobRef{Digest: manifest.DigestOf([]byte("x")), Size: 1}
	_, err := a.Spread(testContext(t), []manifest.BlobRef{ref}, nil, nil, all(1))
	if e := wantError[*NotHeldError](t, err); e.Ref != ref {
		t.Errorf("names %v", e.Ref)
	}
}

// A peer without room costs its own receipt, says why, and is not lost for the
// next time.
func TestSpreadRefused(t *testing.T) {
	for name, size := range map[string]int{"eager": 1000, "small": 100_000, "large": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			net := newNet(t)
			a, b, c := net.node("n-a"), net.node("n-b"), net.node("n-c")
			var full atomic.Bool
			full.Store(true)
			b.store.onPut = func(manifest.BlobRef) error {
				if full.Load() {
					return errors.New("not enough space")
				}
				return nil
			}
			refs := a.store.addAll(content(3, size, 5))
			receipts, err := a.Spread(testContext(t), refs, nil, nodes("n-b", "n-c"), all(3))
			short := wantError[*ShortError](t, err)
			if len(receipts) != 2 || len(short.Have) != 2 {
				t.Errorf("receipts %v", receipts)
			}
			if e := wantError[*RefusedError](t, short.Failed["n-b"]); e.Why != "not enough space" {
				t.Errorf("why: %q", e.Why)
			}
			if !c.store.holds(refs) {
				t.Error("the other peer suffered")
			}
			full.Store(false)
			if _, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2)); err != nil {
				t.Fatalf("with room again: %v", err)
			}
			if !b.store.holds(refs) {
				t.Error("not durable")
			}
		})
	}
}

func TestSpreadFlushFails(t *testing.T) {
	net := newNet(t)
	a, b := net.node("n-a"), net.node("n-b")
	b.store.onFlush = func() error { return errors.New("I/O error") }
	_, err := a.Spread(testContext(t), a.store.addAll(content(1, 10, 6)), nil, nodes("n-b"), all(2))
	wantError[*RefusedError](t, wantError[*ShortError](t, err).Failed["n-b"])

	own := net.node("n-c")
	own.store.onFlush = func() error { return errors.New("I/O error") }
	_, err = own.Spread(testContext(t), own.store.addAll(content(1, 10, 6)), nil, nil, all(1))
	if wantError[*ShortError](t, err).Failed["n-c"] == nil {
		t.Error("the own store's failure is not told")
	}
}

// Spread does not wait for more than enough, and the rest goes on.
func TestSpreadGoesOnInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		a, b, slow := net.node("n-a"), net.node("n-b"), net.node("n-slow")
		release, flushed := make(chan struct{}), make(chan struct{})
		slow.store.onFlush = func() error { <-release; defer close(flushed); return nil }
		refs := a.store.addAll(content(2, 1000, 7))
		ctx, cancel := context.WithCancel(testContext(t))
		receipts, err := a.Spread(ctx, refs, nil, nodes("n-slow", "n-b"), all(2))
		cancel() // no longer matters
		if err != nil || len(receipts) != 2 {
			t.Fatalf("%v, %v", receipts, err)
		}
		if !b.store.holds(refs) {
			t.Error("not durable")
		}
		close(release)
		<-flushed
		if !slow.store.Has(refs[0].Digest) || !slow.store.Has(refs[1].Digest) {
			t.Error("the slow peer was given up")
		}
	})
}

func TestSpreadUnknownPeer(t *testing.T) {
	net := newNet(t)
	a := net.node("n-a")
	_, err := a.Spread(testContext(t), a.store.addAll(content(1, 10, 8)), nil, nodes("n-z"), nil)
	if e := wantError[*ShortError](t, err); e.Failed["n-z"] == nil || len(e.Have) != 1 {
		t.Errorf("%v", e)
	}
}

// A peer whose disk hangs is told apart from one that is slow, and costs
// nobody else anything.
func TestSpreadStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		a, b := net.node("n-a", withLimits(short())), net.node("n-b", withLimits(short()))
		hang := make(chan struct{})
		b.store.onFlush = func() error { <-hang; return nil }
		defer close(hang)
		c := net.node("n-c")
		refs := a.store.addAll(content(1, 1000, 9))
		_, err := a.Spread(testContext(t), refs, nil, nodes("n-b", "n-c"), all(3))
		wantError[*StalledError](t, wantError[*ShortError](t, err).Failed["n-b"])
		if !c.store.holds(refs) {
			t.Error("the other peer suffered")
		}
	})
}

// A flush that takes long is no stall: the receiver says that it is at work.
func TestSlowFlushIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := short()
		net := newNet(t)
		a := net.node("n-a", withLimits(l))
		l.flush = time.Minute
		b := net.node("n-b", withLimits(l))
		b.store.onFlush = func() error { <-time.After(3 * l.stall); return nil }
		if _, err := a.Spread(testContext(t), a.store.addAll(content(1, 1000, 10)), nil, nodes("n-b"), all(2)); err != nil {
			t.Error(err)
		}
	})
}

// mute is a peer that takes a stream and neither reads nor answers.
type mute struct{ pb.UnimplementedContentServer }

func (mute) Push(s grpc.BidiStreamingServer[pb.PushRequest, pb.PushResponse]) error {
	<-s.Context().Done()
	return nil
}

func (mute) Fetch(s grpc.BidiStreamingServer[pb.FetchRequest, pb.FetchResponse]) error {
	<-s.Context().Done()
	return nil
}

func TestSpreadToAMutePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		net.serve("n-mute", mute{})
		a := net.node("n-a", withLimits(short()))
		for name, size := range map[string]int{"eager": 100, "large": 3 << 20} {
			_, err := a.Spread(testContext(t), a.store.addAll(content(1, size, 11)), nil, nodes("n-mute"), all(2))
			if e := wantError[*ShortError](t, err); e.Err != nil {
				t.Errorf("%s: %v", name, e)
			}
			wantError[*StalledError](t, wantError[*ShortError](t, err).Failed["n-mute"])
		}
	})
}

func TestSpreadCancelled(t *testing.T) {
	net := newNet(t)
	net.serve("n-mute", mute{})
	a := net.node("n-a")
	ctx, cancel := context.WithCancel(context.Background())
	a.store.onFlush = func() error { cancel(); return nil }
	receipts, err := a.Spread(ctx, a.store.addAll(content(100, 100_000, 12)), nil, nodes("n-mute"), all(2))
	if e := wantError[*ShortError](t, err); !errors.Is(err, context.Canceled) || e.Failed["n-mute"] == nil {
		t.Errorf("%v", err)
	}
	if len(receipts) > 1 {
		t.Errorf("receipts %v", receipts)
	}
}

// A transfer that was given up half-way leaves a stream that works.
func TestAbandonedBatchFreesTheLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		a, b := net.node("n-a"), net.node("n-b")
		begun, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		b.store.onPut = func(manifest.BlobRef) error {
			once.Do(func() { close(begun); <-release })
			return nil
		}
		ctx, cancel := context.WithCancel(testContext(t))
		failed := make(chan error, 1)
		go func() {
			_, err := a.Spread(ctx, a.store.addAll(content(1, 30<<20, 13)), nil, nodes("n-b"), all(2))
			failed <- err
		}()
		<-begun
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		close(release)
		refs := a.store.addAll(content(1, 2<<20, 14)) // the same lane
		if _, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2)); err != nil {
			t.Fatal(err)
		}
		if !b.store.holds(refs) {
			t.Error("not durable")
		}
		if sent := a.Stats().Sent.Bytes; sent > 3<<20 {
			t.Errorf("%d bytes were sent, most of them for nobody", sent)
		}
	})
}

// A large blob under way delays no small one.
func TestLargeDelaysNoSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		a, b := net.node("n-a"), net.node("n-b")
		begun, release := make(chan struct{}), make(chan struct{})
		b.store.onPut = func(ref manifest.BlobRef) error {
			if ref.Size > smallBlob {
				close(begun)
				<-release
			}
			return nil
		}
		big := a.store.addAll(content(1, 20<<20, 15))
		done := make(chan error, 1)
		go func() {
			_, err := a.Spread(testContext(t), big, nil, nodes("n-b"), all(2))
			done <- err
		}()
		<-begun
		for _, refs := range [][]manifest.BlobRef{a.store.addAll(content(1, 100, 16)), a.store.addAll(content(50, 10_000, 17))} {
			if _, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2)); err != nil {
				t.Fatal(err)
			}
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What cannot be read from the own store costs its batch, not the stream.
func TestSpreadBrokenSource(t *testing.T) {
	for name, size := range map[string]int{"small": 1000, "large": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			net := newNet(t)
			a, b := net.node("n-a"), net.node("n-b")
			bad := a.store.addAll(content(1, size, 18))
			a.store.onOpen = func(d manifest.Digest, r Reader) Reader {
				if d == bad[0].Digest {
					return brokenReader{r, io.MultiReader(io.LimitReader(r, int64(size)-10), failing{})}
				}
				return r
			}
			_, err := a.Spread(testContext(t), bad, nil, nodes("n-b"), all(2))
			wantError[*RefusedError](t, wantError[*ShortError](t, err).Failed["n-b"])
			good := a.store.addAll(content(1, size, 19))
			if _, err := a.Spread(testContext(t), good, nil, nodes("n-b"), all(2)); err != nil {
				t.Error(err)
			}
			if b.store.Has(bad[0].Digest) {
				t.Error("a broken blob was stored")
			}
		})
	}
}

// brokenReader reads what it is told to.
type brokenReader struct {
	Reader
	r io.Reader
}

func (b brokenReader) Read(p []byte) (int, error) { return b.r.Read(p) }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("read error") }

// A peer that hangs does not gather transfers without end.
func TestSpreadBehind(t *testing.T) {
	net := newNet(t)
	a, b := net.node("n-a"), net.node("n-b")
	for range maxBehind { // as that many transfers do that go on in the background
		if err := a.begin("n-b"); err != nil {
			t.Fatal(err)
		}
	}
	refs := a.store.addAll(content(1, 100, 20))
	_, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2))
	if e := wantError[*BehindError](t, wantError[*ShortError](t, err).Failed["n-b"]); e.Transfers != maxBehind {
		t.Errorf("%d transfers", e.Transfers)
	}
	a.finish("n-b")
	if _, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2)); err != nil || !b.store.holds(refs) {
		t.Errorf("once one has ended: %v", err)
	}
	for range maxBehind - 1 {
		a.finish("n-b")
	}
	if len(a.behind) != 0 {
		t.Error("transfers are still counted")
	}
}

func TestSpreadConcurrently(t *testing.T) {
	net := newNet(t)
	a, b, c := net.node("n-a"), net.node("n-b"), net.node("n-c")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			refs := a.store.addAll(content(1+i*7, 1+i*1500, uint64(200+i)))
			if _, err := a.Spread(testContext(t), refs, nil, nodes("n-b", "n-c"), all(3)); err != nil {
				t.Error(err)
			}
			if !b.store.holds(refs) || !c.store.holds(refs) {
				t.Error("not durable")
			}
		})
	}
	wg.Wait()
}

func TestCloseEndsTransfers(t *testing.T) {
	net := newNet(t)
	net.serve("n-mute", mute{})
	a := net.node("n-a")
	errs := make(chan error, 1)
	flushed := make(chan struct{})
	a.store.onFlush = func() error { close(flushed); return nil }
	go func() {
		_, err := a.Spread(context.Background(), a.store.addAll(content(1, 100, 21)), nil, nodes("n-mute"), all(2))
		errs <- err
	}()
	<-flushed
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	wantError[*ShortError](t, <-errs)
	if _, err := a.Spread(context.Background(), a.store.addAll(content(1, 1, 22)), nil, nodes("n-mute"), nil); err == nil {
		t.Error("a spread after close")
	}
	if err := a.Fetch(context.Background(), nil, nil, nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a fetch after close: %v", err)
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		n, size int
		want    string
	}{
		{1, 100, "0:1"}, {1, eagerBytes, "0:1"}, {1, eagerBytes + 1, "1:1"}, {2000, 1, "1:2"},
		{9, smallBlob, "1:2"}, {3, smallBlob + 1, "2:1"}, {2, batchBytes, "2:2"},
	} {
		var refs []manifest.BlobRef
		for i := range c.n {
			refs = append(refs, manifest.BlobRef{Digest: manifest.DigestOf(fmt.Append(nil, i)), Size: int64(c.size)})
		}
		got := ""
		count := 0
		for _, p := range split(refs, nil) {
			got += fmt.Sprintf("%d:%d", p.class, len(p.batches))
			for _, b := range p.batches {
				count += len(b.refs)
			}
		}
		if got != c.want || count != c.n {
			t.Errorf("%d blobs of %d: %s with %d blobs, want %s", c.n, c.size, got, count, c.want)
		}
	}
}
