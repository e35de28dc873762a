package syncer

import (
	"context"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

// heldCarrier spreads content when the test lets it.
type heldCarrier struct {
	Carrier
	asked chan manifest.Digest
	free  chan struct{} // a token for each that may go on
}

func (c *heldCarrier) Spread(ctx context.Context, blobs []manifest.BlobRef) ([]manifest.Receipt, error) {
	select {
	case c.asked <- blobs[0].Digest:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-c.free:
		return c.Carrier.Spread(ctx, blobs)
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
