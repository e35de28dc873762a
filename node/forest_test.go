package node

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// sent is how much content a node has given to others.
func (g *gateway) sent() (bytes uint64, feeds int, err error) {
	s, err := g.status()
	for _, c := range s.Carriers {
		bytes += c.SentBytes
	}
	return bytes, s.Feeds, err
}

// memory is what this process holds.
func memory(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "?"
}

// Many followers of one member: all get everything, nobody sends the content more
// often than it has children, and the death of inner nodes of the tree holds
// the others up for moments only. GATESYNC_LONG=1: a hundred.
func TestPromise_Converge_TreeOfFollowers(t *testing.T) {
	n := 14
	if os.Getenv("GATESYNC_LONG") != "" {
		n = 100
	}
	top := alone(t, "gw1")
	all := []*gateway{top}
	begun := time.Now()
	for i := range n {
		all = append(all, newGateway(t, fmt.Sprintf("f%d", i)).follow(top))
	}
	fed := func(nodes []*gateway) {
		t.Helper()
		eventually(t, func() error {
			for _, g := range nodes {
				if s, err := g.status(); err != nil || s.Node.Role == "follower" && s.Upstream == "" {
					return fmt.Errorf("%s is fed by nobody: %w", g.cfg.Name, err)
				}
			}
			return nil
		})
	}
	fed(all)
	t.Logf("%d followers after %s; %s for %d nodes in one process", n, time.Since(begun).Round(time.Millisecond), memory(t), n+1)
	const size = 200_000
	spread := func(name string, nodes []*gateway) {
		t.Helper()
		before := map[*gateway]uint64{}
		for _, g := range nodes {
			bytes, _, err := g.sent()
			if err != nil {
				t.Fatal(err)
			}
			before[g] = bytes
		}
		text := strings.Repeat(name+" ", size/(len(name)+1))
		begun := time.Now()
		top.write(name, text)
		everywhere(t, name, text, nodes...)
		took := time.Since(begun)
		var busiest uint64
		depth := 0
		for _, g := range nodes {
			bytes, feeds, err := g.sent()
			if err != nil {
				t.Fatal(err)
			}
			out := bytes - before[g]
			busiest = max(busiest, out)
			// Some may ask twice, on a busy machine: fewer than there are in all.
			if limit := uint64(feedChildren+4) * size; feeds > feedChildren || out > limit {
				t.Errorf("%s feeds %d and has sent %d bytes of a file of %d", g.cfg.Name, feeds, out, size)
			}
			if s, err := g.status(); err == nil {
				depth = max(depth, len(s.Path))
			}
		}
		t.Logf("%s: on all %d nodes after %s, depth %d, busiest node sent %.1f times the content", name, len(nodes), took.Round(time.Millisecond), depth, float64(busiest)/size)
	}
	spread("first", all)
	// Every inner follower dies.
	var left []*gateway
	died := 0
	for _, g := range all {
		if _, feeds, err := g.sent(); err != nil || g != top && feeds > 0 && died < n/7 {
			g.stop()
			died++
			continue
		}
		left = append(left, g)
	}
	if died == 0 {
		t.Fatal("no follower fed another one")
	}
	begun = time.Now()
	fed(left)
	t.Logf("%d inner nodes died: all are fed again after %s", died, time.Since(begun).Round(time.Millisecond))
	spread("second", left)
}
