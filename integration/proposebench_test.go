package integration

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatesync/gatesync/integration/linear"
	"github.com/gatesync/gatesync/manifest"
)

// BenchmarkPropose measures changesets of one small file through the local API
// of three nodes: acknowledged means committed, with the content on the disks of
// a majority. The trees take them over meanwhile.
func BenchmarkPropose(b *testing.B) {
	span := size(8*time.Second, 30*time.Second)
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d-clients", clients), func(b *testing.B) {
			c := newCluster(b, 3)
			took := proposeAll(b, c, clients, span)
			perSecond := float64(len(took)) / span.Seconds()
			p50, p99 := quantile(took, 0.5), quantile(took, 0.99)
			b.ReportMetric(perSecond, "changesets/s")
			b.ReportMetric(float64(p50.Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
			what := fmt.Sprintf("proposals of one small file, %d clients", clients)
			figures.add(figure{what, ours, perSecond, "/s", ""})
			figures.took(what+", p50", ours, p50, "")
			begun := time.Now()
			c.waitEqual(2 * time.Minute)
			figures.took(what+", then until all trees hold them", ours, time.Since(begun), "")
		})
	}
}

// proposeAll has each client change a file of its own, over and over.
func proposeAll(b *testing.B, c *cluster, clients int, span time.Duration) (took []time.Duration) {
	b.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	ctx, cancel := context.WithTimeout(b.Context(), span)
	defer cancel()
	for i := range clients {
		all.Go(func() {
			client := &localClient{data: c.nodes[i%len(c.nodes)].data}
			defer client.drop()
			path := fmt.Sprintf("client%d.xml", i)
			var expect uint64
			var mine []time.Duration
			for n := 0; ctx.Err() == nil; n++ {
				text := fmt.Sprintf("client %d change %d %s\n", i, n, strings.Repeat("x", 100))
				begun := time.Now()
				res, err := client.Propose(b.Context(), linear.Propose{Tag: fmt.Sprintf("c%d-%d", i, n), Changes: []linear.Change{
					{Path: path, Expect: expect, Digest: manifest.DigestOf([]byte(text)).String(), Content: text},
				}})
				if err != nil || len(res.Refused) > 0 {
					b.Errorf("client %d, change %d: %+v, %v", i, n, res, err)
					break
				}
				mine = append(mine, time.Since(begun))
				expect = res.Revision
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	all.Wait()
	return took
}
