package fallback

import (
	"context"
	"testing"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// A maker that is given up while it finds out that the delta would be too long
// leaves nothing behind that others ask for without end.
func TestAGivenUpMakerLeavesNoRiddle(t *testing.T) {
	store := newMemStore("s-a")
	d := newDeltas(store)
	defer d.end()
	both := content(2, 8<<10, 7) // nothing in common
	old, ref := store.add(both[0]), store.add(both[1])
	ctx, cancel := context.WithCancel(t.Context())
	store.onOpen = func(_ manifest.Digest, r Reader) Reader {
		cancel()
		return r
	}
	if m := d.get(ctx, ref, old.Digest); m != nil {
		t.Fatal("a delta of what has nothing in common")
	}
	next, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if m := d.get(next, ref, old.Digest); m != nil || next.Err() != nil {
		t.Fatalf("%v, %v", m, next.Err())
	}
}

// countedReads counts what is read of a blob, and gives the maker up with the first.
type countedReads struct {
	Reader
	n      *int
	cancel context.CancelFunc
}

func (c countedReads) ReadAt(b []byte, off int64) (int, error) {
	*c.n++
	c.cancel()
	return c.Reader.ReadAt(b, off)
}

// Close waits for who makes deltas, so that has to end also while the old
// version, however large, is read.
func TestAMakerEndsWhileItReadsTheOldVersion(t *testing.T) {
	store := newMemStore("s-a")
	d := newDeltas(store)
	defer d.end()
	e := edit(20<<20, 8)
	old := store.add(e.old)
	store.add(e.content)
	ctx, cancel := context.WithCancel(t.Context())
	reads := 0
	store.onOpen = func(d manifest.Digest, r Reader) Reader {
		if d == old.Digest {
			r = countedReads{r, &reads, cancel}
		}
		return r
	}
	if m := d.get(ctx, e.ref, old.Digest); m != nil || reads != 1 {
		t.Errorf("%v, %d reads", m, reads)
	}
}

// What was made for a Spread that is still on its way is not forgotten: on a
// slow line whatever goes before it takes its time.
func TestDeltasStayWhileTheirSpreadRuns(t *testing.T) {
	store := newMemStore("s-a")
	d := newDeltas(store)
	defer d.end()
	e := edit(5<<20, 9)
	old := store.add(e.old)
	store.add(e.content)
	d.hold()
	d.release(d.get(t.Context(), e.ref, old.Digest))
	d.forgetAll()
	m := d.find(t.Context(), e.ref, old.Digest)
	if d.release(m); m == nil {
		t.Fatal("forgotten")
	}
	d.letGo()
	d.forgetAll()
	if d.find(t.Context(), e.ref, old.Digest) != nil {
		t.Fatal("kept for nobody")
	}
}

// To go on with the rest of a very large blob its beginning is digested first,
// which may take longer than anybody waits for a word.
func TestWhoDigestsABeginningIsNotGivenUp(t *testing.T) {
	for _, way := range []string{"fetch", "push"} {
		t.Run(way, timeless(func(t *testing.T) {
			net := newNet(t)
			a, b := net.node("n-a", withLimits(short())), net.node("n-b", withLimits(short()))
			c := content(1, 20<<20, 10)[0]
			ref := a.store.add(c)
			b.store.partial[ref.Digest] = c[:2<<20]
			b.store.onRest = func(manifest.BlobRef) { <-time.After(2 * short().stall) }
			var err error
			if way == "fetch" {
				err = b.Fetch(testContext(t), []manifest.BlobRef{ref}, nil, nodes("n-a"), nil)
			} else {
				_, err = a.Spread(testContext(t), []manifest.BlobRef{ref}, nil, nodes("n-b"), all(2))
			}
			if err != nil || !b.store.Has(ref.Digest) {
				t.Fatal(err)
			}
			if s := a.Stats(); s.Sent.Wire+s.Served.Wire != ref.Size-2<<20 {
				t.Errorf("%+v", s)
			}
		}))
	}
}
