package fallback

import (
	"context"
	"fmt"
	"testing"
)

// BenchmarkSpread measures the stream alone: stores in memory, TCP on the
// loopback, no TLS.
func BenchmarkSpread(b *testing.B) {
	for _, c := range []struct{ n, size int }{{1, 6 << 10}, {10_000, 6 << 10}, {1, 256 << 20}} {
		b.Run(fmt.Sprintf("%dx%d", c.n, c.size), func(b *testing.B) {
			net := newNet(b)
			a := net.node("n-a")
			to := []*testNode{net.node("n-b"), net.node("n-c")}
			refs := a.store.addAll(content(c.n, c.size, 1))
			b.SetBytes(int64(2 * c.n * c.size))
			for b.Loop() {
				if _, err := a.Spread(context.Background(), refs, nil, nodes("n-b", "n-c"), nil); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				for _, n := range to {
					clear(n.store.blobs)
				}
				b.StartTimer()
			}
		})
	}
}
