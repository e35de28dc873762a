package fallback

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gatesync/gatesync/cluster"
)

// gigabit is what a machine's cable carries in a second.
const gigabit = 118 << 20

// cable is one direction of one machine's cable: who sends waits for his turn.
type cable struct {
	mu    sync.Mutex
	free  time.Time
	bytes atomic.Int64
}

func (c *cable) send(n int) {
	c.bytes.Add(int64(n))
	c.mu.Lock()
	now := time.Now()
	if c.free.Before(now) {
		c.free = now
	}
	c.free = c.free.Add(time.Duration(float64(n) / gigabit * float64(time.Second)))
	wait := c.free.Sub(now)
	c.mu.Unlock()
	if wait > time.Millisecond {
		time.Sleep(wait)
	}
}

// cabled is a connection whose writes leave by a cable.
type cabled struct {
	net.Conn
	out *cable
}

func (c cabled) Write(b []byte) (int, error) {
	c.out.send(len(b))
	return c.Conn.Write(b)
}

// BenchmarkCarriers compares the ways that content takes to 1, 3 and 10 nodes, on
// machines with a gigabit each: what a spread to all of them takes, what
// leaves the author, and what travels in all. The share is a directory here,
// behind a file server's cables; what NFS itself costs is measured in
// integration/nfs.
func BenchmarkCarriers(b *testing.B) {
	for _, corpus := range []struct {
		name    string
		n, size int
	}{{"8x4KB", 8, 4 << 10}, {"1000x8KB", 1000, 8 << 10}, {"1x64MB", 1, 64 << 20}} {
		for _, receivers := range []int{1, 3, 10} {
			for _, way := range []string{"push", "share"} {
				b.Run(fmt.Sprintf("%s/%dnodes/%s", corpus.name, receivers, way), func(b *testing.B) {
					for range b.N {
						carry(b, way, receivers, content(corpus.n, corpus.size, uint64(receivers)))
					}
				})
			}
		}
	}
}

func carry(b *testing.B, way string, receivers int, all [][]byte) {
	b.StopTimer()
	author, toServer, fromServer := &cable{}, &cable{}, &cable{}
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ShareMarker), nil, 0o644); err != nil {
		b.Fatal(err)
	}
	n := &benchNet{testNet: newNet(b), out: author}
	sn := &shareNet{testNet: n.testNet, told: map[cluster.NodeID]*Share{}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer func() { cancel(); running.Wait() }()
	node := func(id cluster.NodeID) (*testNode, *Chain) {
		share := NewShare(ShareConfig{Path: dir, Cluster: "c-1", Self: id, Told: sn.nonces})
		l := quickShare()
		l.patience, l.flush, l.grace = 10*time.Second, 10*time.Second, time.Minute
		share.limit(l)
		// The bytes of a call are not known to the gate: they are of one chunk.
		chunk := min(parcelChunk, total(all))
		share.gate.Before(func(op, _ string) error {
			switch op {
			case "write":
				author.send(chunk)
				toServer.bytes.Add(int64(chunk))
			case "read":
				fromServer.send(chunk)
			}
			return nil
		})
		var chain *Chain
		x := n.node(id, func(p *Push) { chain = NewChain(share, p); p.peers = n })
		sn.mu.Lock()
		sn.told[id] = share
		sn.mu.Unlock()
		running.Go(func() { _ = share.Run(ctx); _ = share.Close() })
		return x, chain
	}
	a, chain := node("n-a")
	var to []cluster.NodeID
	var stores []*memStore
	for i := range receivers {
		id := cluster.NodeID(fmt.Sprintf("n-%d", i))
		x, _ := node(id)
		to = append(to, id)
		stores = append(stores, x.store)
	}
	refs := a.store.addAll(all)
	if way == "share" {
		eventually(b, "all receivers see the share", func() bool { return len(chain.share.Status().Peers) >= receivers })
	}
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.StartTimer()
	begun := time.Now()
	var err error
	if way == "share" {
		_, err = chain.Spread(context.Background(), refs, nil, to, nil)
	} else {
		_, err = a.Push.Spread(context.Background(), refs, nil, to, nil)
	}
	took := time.Since(begun)
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range stores {
		if !s.holds(refs) {
			b.Fatal("it did not arrive")
		}
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	const mb = 1 << 20
	b.ReportMetric(float64(took.Microseconds())/1000, "ms")
	b.ReportMetric(float64(author.bytes.Load())/mb, "author-MB")
	b.ReportMetric(float64(author.bytes.Load()+fromServer.bytes.Load())/mb, "net-MB")
	b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/1e6, "cpu-ms")
}

func total(all [][]byte) (n int) {
	for _, b := range all {
		n += len(b)
	}
	return n
}

// benchNet is a testNet whose connections from the author leave by a cable.
type benchNet struct {
	*testNet
	out *cable
	own map[cluster.NodeID]*grpc.ClientConn
}

func (n *benchNet) Conn(ctx context.Context, id cluster.NodeID) (grpc.ClientConnInterface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.own[id]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient(n.conns[id].Target(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			return cabled{conn, n.out}, err
		}))
	if err != nil {
		return nil, err
	}
	if n.own == nil {
		n.own = map[cluster.NodeID]*grpc.ClientConn{}
	}
	n.own[id] = c
	n.t.Cleanup(func() { _ = c.Close() })
	return c, nil
}
