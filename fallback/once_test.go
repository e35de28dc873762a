package fallback

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// held is a reader whose first Read waits.
type held struct {
	Reader
	begun   chan<- struct{}
	release <-chan struct{}
	passed  bool
}

func (h *held) Read(b []byte) (int, error) {
	if !h.passed {
		h.passed = true
		h.begun <- struct{}{}
		<-h.release
	}
	return h.Reader.Read(b)
}

// What a node is fetching already, when its push is offered, is not pushed as
// well: with a single receiver the commit may be there before the offer is.
func TestWhatIsBeingFetchedIsNotPushedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		a, b := net.node("n-a"), net.node("n-b")
		refs := a.store.addAll(content(3, 2<<20, 31))
		begun, release := make(chan struct{}, 2), make(chan struct{})
		a.store.onOpen = func(d manifest.Digest, r Reader) Reader {
			if d != refs[0].Digest {
				return r
			}
			return &held{Reader: r, begun: begun, release: release}
		}
		ctx := testContext(t)
		fetched := make(chan error, 1)
		go func() { fetched <- b.Fetch(ctx, refs[:1], nil, nodes("n-a"), nil) }()
		<-begun // the fetch is being answered
		spread := make(chan error, 1)
		go func() {
			_, err := a.Spread(ctx, refs, nil, nodes("n-b"), all(2))
			spread <- err
		}()
		synctest.Wait() // until there is nothing left to do but to wait for the fetch
		if b.messages.Load() == 0 {
			t.Fatal("nothing was offered")
		}
		close(release)
		if err := <-fetched; err != nil {
			t.Fatal(err)
		}
		if err := <-spread; err != nil || !b.store.holds(refs) {
			t.Fatal(err)
		}
		if s := a.Stats(); s.Served.Wire != 2<<20 || s.Sent.Wire != 2*2<<20 {
			t.Errorf("%d bytes were fetched and %d pushed, of three times 2 MiB of which one was being fetched", s.Served.Wire, s.Sent.Wire)
		}
	})
}

// What a fetch would still ask for is not asked for where a push has begun
// meanwhile to bring it.
func TestWhatIsBeingPushedMeanwhileIsNotAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNet(t)
		a, b := net.node("n-a"), net.node("n-b")
		large, small := a.store.add(content(1, 5<<20, 32)[0]), a.store.add(content(1, 100<<10, 33)[0])
		begun, release := make(chan struct{}, 2), make(chan struct{})
		a.store.onOpen = func(d manifest.Digest, r Reader) Reader {
			if d != large.Digest {
				return r
			}
			return &held{Reader: r, begun: begun, release: release}
		}
		arrives, go1 := make(chan struct{}, 2), make(chan struct{})
		b.store.onPut = func(ref manifest.BlobRef) error {
			if ref == small {
				arrives <- struct{}{}
				<-go1
			}
			return nil
		}
		ctx := testContext(t)
		got := make(chan manifest.Digest, 2)
		fetched := make(chan error, 1)
		go func() { // the large one is all that it asks for at once
			fetched <- b.Fetch(ctx, []manifest.BlobRef{large, small}, nil, nodes("n-a"), func(d manifest.Digest, _ error) { got <- d })
		}()
		<-begun
		spread := make(chan error, 1)
		go func() {
			_, err := a.Spread(ctx, []manifest.BlobRef{small}, nil, nodes("n-b"), all(2))
			spread <- err
		}()
		<-arrives // by the push
		close(release)
		if d := <-got; d != large.Digest {
			t.Errorf("%s came first", d.Short())
		}
		close(go1)
		if err := <-fetched; err != nil {
			t.Fatal(err)
		}
		if err := <-spread; err != nil {
			t.Fatal(err)
		}
		if s := a.Stats(); s.Served.Blobs != 1 || s.Sent.Blobs != 1 {
			t.Errorf("%d blobs were fetched, %d pushed", s.Served.Blobs, s.Sent.Blobs)
		}
	})
}

// A stream that is quiet for too long is waited for once, however many blobs
// it was to bring.
func TestWhatWaitsBehindOthersDoesNotWaitAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a arrivals
		var p pulse
		p.beat()
		var coming []*arrival
		for _, c := range content(300, 16, 34) {
			coming = append(coming, a.begin(manifest.DigestOf(c), &p, false))
		}
		begun := time.Now()
		for _, v := range coming {
			v.wait(context.Background(), time.Second)
		}
		if took := time.Since(begun); took != time.Second {
			t.Errorf("300 blobs of a stream that hangs were waited for %v", took)
		}
	})
}
