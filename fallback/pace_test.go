package fallback

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// What all lanes send together keeps to the rate; what is small and urgent does
// not wait, and counts.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1 << 20)
		begin, ctx := time.Now(), t.Context()
		left := make(chan error)
		for range 4 {
			go func() {
				var err error
				for range 10 << 20 / p.piece() / 4 {
					err = errors.Join(err, p.wait(ctx, p.piece(), func() {}))
				}
				left <- err
			}()
		}
		for range 4 {
			if err := <-left; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("10 MB at 1 MB a second took %v", took)
		}
		p.passed(eagerBytes)
		if time.Since(begin) > 11*time.Second {
			t.Error("a small file waited")
		}
		// Who gives up waits no longer, and says that he is alive until then.
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		begin = time.Now()
		for range 16 {
			p.passed(maxPiece)
		}
		alive := 0
		if err := p.wait(ctx, maxPiece, func() { alive++ }); err == nil || alive != 2 || time.Since(begin) != 2500*time.Millisecond {
			t.Errorf("%v after %v, alive %d times", err, time.Since(begin), alive)
		}
	})
}

func TestNoPace(t *testing.T) {
	var p pace
	if p.piece() != maxPiece || p.wait(t.Context(), 1<<40, nil) != nil {
		t.Error("without a limit something waits")
	}
	if n := newPace(100 << 10).piece(); n != eagerBytes {
		t.Errorf("a piece of %d bytes at 100 KB/s", n)
	}
}

// Who waits for his turn behind much that went first is not given up by the
// receiver of what he has begun.
func TestWhoWaitsForHisTurnIsNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := short()
		limits.stall = 3 * time.Second
		net := newNet(t)
		a := net.node("n-a", withLimits(limits), func(p *Push) { p.Limit(1 << 20) })
		b := net.node("n-b", withLimits(limits))
		for range 5 << 20 / maxPiece { // small edits, five seconds of them
			a.pace.passed(maxPiece)
		}
		refs := a.store.addAll(content(1, 200<<10, 11))
		if _, err := a.Spread(testContext(t), refs, nil, nodes("n-b"), all(2)); err != nil || !b.store.holds(refs) {
			t.Fatal(err)
		}
	})
}

// Who fetches what waits for its turn is told so: he neither takes the other end
// for dead nor asks anew, behind all the others again.
func TestWhoFetchesWhatWaitsForItsTurnDoesNotAskAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := short()
		limits.stall, limits.hedge = 1500*time.Millisecond, 1500*time.Millisecond
		net := newNet(t)
		a := net.node("n-a", withLimits(limits), func(p *Push) { p.Limit(1 << 20) })
		b := net.node("n-b", withLimits(limits))
		for range 3 << 20 / maxPiece {
			a.pace.passed(maxPiece)
		}
		refs := a.store.addAll(content(1, 300<<10, 12))
		if err := b.Fetch(testContext(t), refs, nil, nodes("n-a"), nil); err != nil {
			t.Fatal(err)
		}
		if s := a.Stats(); s.Served.Wire != refs[0].Size {
			t.Errorf("%d bytes travelled for %d", s.Served.Wire, refs[0].Size)
		}
	})
}
