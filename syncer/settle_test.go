package syncer

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// heldCarrier spreads content when the test lets it.
type heldCarrier struct {
	Carrier
	asked chan manifest.Digest
	free  chan struct{} // a token for each that may go on
}

func (c *heldCarrier) Spread(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases) ([]manifest.Receipt, error) {
	select {
	case c.asked <- blobs[0].Digest:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-c.free:
		return c.Carrier.Spread(ctx, blobs, bases)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Whoever waits waits for what was written before, and not for a gateway that
// goes on writing: with it there is always something under way.
func TestSettleWaitsForWhatWasBefore(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "a")
	held := &heldCarrier{Carrier: b.node, asked: make(chan manifest.Digest), free: make(chan struct{})}
	b.change = func(c *Config) { c.Carrier = held }
	b.start()
	ctx := ctxOf(t)
	b.write("before", "one")
	if got := <-held.asked; got != manifest.DigestOf([]byte("one")) {
		t.Fatalf("%s is spread first", got.Short())
	}
	settled := make(chan error, 1)
	go func() { settled <- b.s.Settle(ctx) }()
	b.until("the wait has begun", func() bool {
		begun, err := ask(ctx, b.s, func(l *Loop) bool { return l.works.mark == 1 })
		return err == nil && begun
	})
	b.write("later", "two")
	b.until("both are under way", func() bool { st, err := b.s.Status(ctx); return err == nil && st.Loop.Unsettled == 2 })
	select {
	case err := <-settled:
		t.Fatalf("over before what was written is in the log: %v", err)
	default:
	}
	held.free <- struct{}{}
	if got := <-held.asked; got != manifest.DigestOf([]byte("two")) {
		t.Fatalf("%s is spread next", got.Short())
	}
	if err := <-settled; err != nil {
		t.Errorf("waited for what came later: %v", err)
	}
	if c := h.tree.Entry("before"); c.Absent() {
		t.Error("what was written before the wait is not in the log")
	}
	held.free <- struct{}{}
}

// Where leases do not work each file of a large tree has to rest, and a look at
// one comes after those at all the others: none may be forgotten meanwhile, or
// the tree is never taken in.
func TestManyFilesRest(t *testing.T) {
	l := newLookers(nil)
	const files, each = 20_000, 2 * time.Millisecond // a look
	now := time.Unix(1_700_000_000, 0)
	round := func(stamp Stamp) (rested int) {
		for i := range files {
			if l.rested(manifest.Path(fmt.Sprint(i)), stamp, now) == nil {
				rested++
			}
			now = now.Add(each)
		}
		return rested
	}
	if n := round(Stamp{Ino: 1}); n > 0 {
		t.Errorf("%d rested at the first sight", n)
	}
	if n := round(Stamp{Ino: 1}); n != files {
		t.Errorf("%d of %d files rested", n, files)
	}
	if n := len(l.rest); n > 0 {
		t.Errorf("%d rest still", n)
	}
	// What is never looked at again is forgotten in the end.
	round(Stamp{Ino: 2})
	now = now.Add(restFor)
	for i := range 2 * files {
		_ = l.rested(manifest.Path(fmt.Sprintf("more/%d", i)), Stamp{Ino: 3}, now)
	}
	if n := len(l.rest); n != 2*files {
		t.Errorf("%d are remembered", n)
	}
}

// Where leases do not work a survey waits for the files' quiet second, too: they
// are read, and not reported as busy.
func TestVerifyWithoutLeases(t *testing.T) {
	h, b := committedFile(t, errorfs.Func(func(op, _ string) error {
		if op == errorfs.FileLease {
			return vfs.ErrNoLease
		}
		return nil
	}), "d/f", "x")
	b.settle()
	done, err := b.s.Verify(ctxOf(t), func(d Drift) error { t.Errorf("%+v", d); return nil })
	if err != nil || done.Entries != 2 || done.Bytes != 1 {
		t.Errorf("%+v of %d, %v", done, h.revision(), err)
	}
}
