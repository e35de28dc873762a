package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	gs "github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/integration/linear"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/node/local"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// faults makes trouble for a cluster until ctx ends, and leaves it whole. It
// runs on the test's goroutine.
type faults func(ctx context.Context, c *cluster, rng *rand.Rand)

// Clients at the sockets of all daemons, which are killed and stopped, and, as
// root, cut off from others in one direction or both: one order of everything
// that they were told, and trees that hold its end.
func TestPromise_Order_LocalAPIIsLinearizable(t *testing.T) {
	t.Parallel()
	span := size(8*time.Second, time.Minute)
	if soak, err := time.ParseDuration(os.Getenv("GATESYNC_SOAK")); err == nil {
		span = soak
	}
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("GATESYNC_SEED"), 10, 64); err == nil {
		seed = s
	}
	if os.Getuid() != 0 {
		t.Log("not root: no partitions, only what happens to processes")
		linearizable(t, newCluster(t, 3), seed, span, func(ctx context.Context, c *cluster, rng *rand.Rand) { trouble(ctx, c, nil, rng) })
		return
	}
	c, h := newHostCluster(t, 3)
	linearizable(t, c, seed, span, func(ctx context.Context, c *cluster, rng *rand.Rand) { trouble(ctx, c, h, rng) })
}

// linearizable works on a cluster under faults and checks what the clients saw.
func linearizable(t *testing.T, c *cluster, seed uint64, span time.Duration, trouble faults) {
	t.Helper()
	t.Logf("seed %d: GATESYNC_SEED=%d runs it again", seed, seed)
	w := linear.Work{
		Seed: seed, Timeout: 3 * time.Second, Pause: 20 * time.Millisecond, Patience: time.Minute,
		Groups: [][]string{{"a1.xml", "a2.xml", "a3.xml", "a4.xml"}, {"b1.xml"}, {"c1.xml", "c2.xml"}},
	}
	for range 2 {
		for _, n := range c.nodes {
			client := &localClient{data: n.data}
			t.Cleanup(client.drop)
			w.Clients = append(w.Clients, client)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	done := make(chan *linear.History, 1)
	go func() { done <- linear.Run(ctx, w) }()
	trouble(ctx, c, rand.New(rand.NewPCG(seed, 3)))
	h := <-done
	counts := h.Counts()
	t.Logf("%+v", counts)
	if !counts.Enough() {
		t.Errorf("too little happened to say anything: %+v", counts)
	}
	c.waitVoters(len(c.nodes))
	log := settledLog(t, c)
	if err := linear.Check(h, w.Groups, linear.CommitsOf(log)); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
	for _, commit := range log {
		if commit.Origin.Kind != manifest.FromAPI {
			t.Errorf("nobody edited a tree, yet revision %d is an edit that was seen on a disk: %v", commit.Revision, commit.Changes)
		}
	}
}

// trouble kills daemons, stops others for a while, and cuts others off where
// there are hosts, one at a time.
func trouble(ctx context.Context, c *cluster, h *hosts, rng *rand.Rand) {
	kinds := 2
	if h != nil {
		kinds = 3
	}
	for ctx.Err() == nil {
		n := c.nodes[rng.IntN(len(c.nodes))]
		wait := time.Duration(rng.IntN(1500)) * time.Millisecond
		switch rng.IntN(kinds) {
		case 0:
			n.kill()
			_ = sleep(ctx, wait)
			n.start()
		case 1:
			_ = n.daemon.Process.Signal(syscall.SIGSTOP)
			_ = sleep(ctx, wait)
			_ = n.daemon.Process.Signal(syscall.SIGCONT)
		case 2:
			(&soak{c: c, h: h, rng: rng}).part(n)
			_ = sleep(ctx, wait+time.Second) // longer than an election
			h.mendAll()
		}
		_ = sleep(ctx, time.Duration(rng.IntN(1000))*time.Millisecond)
	}
}

// settledLog is what all daemons name as the history, oldest first, once all trees hold
// what it ends with. What a client did not wait for may still be on its way to it.
func settledLog(t *testing.T, c *cluster) (log []manifest.Commit) {
	t.Helper()
	eventually(t, 60*time.Second, "all tell one log, and every tree holds its end", func() (err error) {
		if log, err = agreedLog(t.Context(), c); err != nil {
			return err
		}
		return treesHold(c, linear.CommitsOf(log))
	})
	return log
}

func agreedLog(ctx context.Context, c *cluster) ([]manifest.Commit, error) {
	var first []manifest.Commit
	for i, n := range c.nodes {
		client := &localClient{data: n.data}
		_, err := client.Read(ctx, linear.Read{Paths: []string{"any"}}) // catches up
		var log []manifest.Commit
		if err == nil {
			log, err = client.log(ctx)
		}
		client.drop()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.name, err)
		}
		if i == 0 {
			first = log
		}
		if !linear.Same(linear.CommitsOf(log), linear.CommitsOf(first)) {
			return nil, fmt.Errorf("%s and %s disagree on the history", n.name, c.nodes[0].name)
		}
	}
	return first, nil
}

func treesHold(c *cluster, log []linear.Commit) error {
	want := map[string]string{}
	for _, commit := range log {
		for path, digest := range commit.Changes {
			want[path] = digest
		}
	}
	for _, n := range c.nodes {
		for path, digest := range want {
			have := ""
			if b, err := os.ReadFile(filepath.Join(n.tree, path)); err == nil {
				have = manifest.DigestOf(b).String()
			}
			if have != digest {
				return fmt.Errorf("%s on %s is %.12s, want %.12s", path, n.name, have, digest)
			}
		}
	}
	return nil
}

// localClient reaches a daemon through its socket, anew after every error.
type localClient struct {
	data string
	conn *grpc.ClientConn
}

func (c *localClient) drop() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// with calls fn with the daemon.
func (c *localClient) with(ctx context.Context, fn func(pb.LocalClient) error) (err error) {
	if c.conn == nil {
		if c.conn, err = local.Dial(ctx, c.data); err != nil {
			return gs.NotCommitted(err)
		}
	}
	if err = fn(pb.NewLocalClient(c.conn)); err != nil {
		c.drop()
	}
	return err
}

// Propose implements linear.Client.
func (c *localClient) Propose(ctx context.Context, p linear.Propose) (linear.Proposed, error) {
	set := local.Proposal{Tree: "server", Atomic: p.Atomic, Message: p.Tag, Timeout: 2 * time.Second}
	for _, ch := range p.Changes {
		lc := local.Change{Change: manifest.Change{Path: manifest.Path(ch.Path), Expect: manifest.Revision(ch.Expect)}}
		switch {
		case ch.Content != "":
			lc.New = manifest.Entry{Kind: manifest.File}
			lc.Content = strings.NewReader(ch.Content)
		case ch.Digest != "":
			d, err := manifest.ParseDigest(ch.Digest)
			if err != nil {
				return linear.Proposed{}, gs.NotCommitted(err)
			}
			lc.New = manifest.Entry{Kind: manifest.File, Size: linear.ContentSize, Digest: d}
		}
		set.Changes = append(set.Changes, lc)
	}
	var res manifest.Result
	err := c.with(ctx, func(l pb.LocalClient) (err error) {
		res, err = local.Propose(ctx, l, set)
		return err
	})
	return linear.ProposedOf(res), err
}

// Read implements linear.Client.
func (c *localClient) Read(ctx context.Context, r linear.Read) (linear.Found, error) {
	return c.read(ctx, r, true)
}

// ReadLocal implements linear.Client.
func (c *localClient) ReadLocal(ctx context.Context, r linear.Read) (linear.Found, error) {
	return c.read(ctx, r, false)
}

func (c *localClient) read(ctx context.Context, r linear.Read, linearizable bool) (linear.Found, error) {
	f := linear.Found{Values: map[string]linear.Value{}}
	req := &pb.ReadTreeRequest{Tree: "server", Linearizable: linearizable}
	for _, p := range r.Paths {
		req.Paths = append(req.Paths, []byte(p))
	}
	err := c.with(ctx, func(l pb.LocalClient) error {
		rev, err := local.Read(ctx, l, req, func(p manifest.Path, n manifest.Node) error {
			f.Values[string(p)] = linear.ValueOf(n)
			return nil
		})
		f.Revision = uint64(rev)
		return err
	})
	return f, err
}

// log is the daemon's whole history.
func (c *localClient) log(ctx context.Context) (log []manifest.Commit, err error) {
	err = c.with(ctx, func(l pb.LocalClient) error {
		stream, err := l.Log(ctx, &pb.LogRequest{Limit: 1 << 30, Paths: true})
		for err == nil {
			var m *pb.Commit
			if m, err = stream.Recv(); err == nil {
				var commit manifest.Commit
				commit, err = proto.ToCommit(m)
				log = append(log, commit)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
	return log, err
}
