package raftstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// network is real TCP on the loopback, by node id, whose nodes can be cut off.
type network struct {
	mu    sync.Mutex
	addrs map[string]string
	off   map[string]bool
	conns map[*netConn]struct{}
	store map[cluster.NodeID]*Store // for forwarding
}

func newNetwork() *network {
	return &network{addrs: map[string]string{}, off: map[string]bool{}, conns: map[*netConn]struct{}{}, store: map[cluster.NodeID]*Store{}}
}

type netConn struct {
	net.Conn
	ends [2]string
	of   *network
}

func (c *netConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// layer is one node's raft.StreamLayer.
type layer struct {
	net.Listener
	id string
	of *network
}

func (n *network) layer(t testing.TB, id string) *layer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[id] = l.Addr().String()
	return &layer{Listener: l, id: id, of: n}
}

func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	l.of.mu.Lock()
	addr, ok := l.of.addrs[string(address)]
	cut := l.of.off[l.id] || l.of.off[string(address)]
	l.of.mu.Unlock()
	if !ok || cut {
		return nil, fmt.Errorf("no way from %s to %s", l.id, address)
	}
	c, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return nil, err
	}
	nc := &netConn{Conn: c, ends: [2]string{l.id, string(address)}, of: l.of}
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	if l.of.off[l.id] || l.of.off[string(address)] { // cut meanwhile
		_ = c.Close()
		return nil, fmt.Errorf("no way from %s to %s", l.id, address)
	}
	l.of.conns[nc] = struct{}{}
	return nc, nil
}

// cut takes a node off the network, or puts it back.
func (n *network) cut(id cluster.NodeID, off bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.off[string(id)] = off
	for c := range n.conns {
		if off && (c.ends[0] == string(id) || c.ends[1] == string(id)) {
			_ = c.Conn.Close()
		}
	}
}

var errUnreachable = errors.New("unreachable")

// forwarder is the Forwarder of one node, in process.
type forwarder struct {
	self string
	of   *network
}

func (f forwarder) Forward(ctx context.Context, leader cluster.NodeID, cmd *pb.Command) (*pb.Outcome, uint64, error) {
	f.of.mu.Lock()
	to, cut := f.of.store[leader], f.of.off[f.self] || f.of.off[string(leader)]
	f.of.mu.Unlock()
	if to == nil || cut {
		return nil, 0, errUnreachable
	}
	return to.ApplyLocal(ctx, cmd)
}

// fast makes elections short enough for a test, and long enough for a machine
// that is busy with other tests.
var fast = Tuning{
	Heartbeat: 250 * time.Millisecond, Election: 250 * time.Millisecond, Lease: 200 * time.Millisecond,
	RPC: 2 * time.Second, SnapshotInterval: time.Hour, SnapshotThreshold: 1 << 40,
}

type testCluster struct {
	t    testing.TB
	dir  string
	net  *network
	tune Tuning
	wrap func(cluster.NodeID) func(logs) logs
	free func(cluster.NodeID) (int64, error) // of the disks; nil: nobody looks
	// saves puts a faulty disk under a node's term and vote; nil: none is
	saves func(cluster.NodeID) func(raft.StableStore) raft.StableStore
}

func newTestCluster(t testing.TB) *testCluster {
	return &testCluster{t: t, dir: t.TempDir(), net: newNetwork(), tune: fast}
}

func (c *testCluster) config(id cluster.NodeID) Config {
	cfg := Config{Dir: filepath.Join(c.dir, string(id)), ID: id, Tuning: c.tune, Reserve: -1}
	if c.free != nil {
		cfg.Reserve, cfg.free = 1000, func(string) (int64, error) { return c.free(id) }
	}
	if c.saves != nil {
		cfg.saves = c.saves(id)
	}
	return cfg
}

func member(id cluster.NodeID) cluster.Member {
	return cluster.Member{ID: id, Name: "name-" + string(id), Store: "s-" + string(id), Joined: 1}
}

// open starts a node; it closes with the test if it was not closed before.
func (c *testCluster) open(id cluster.NodeID) *Store {
	c.t.Helper()
	cfg := c.config(id)
	cfg.Stream, cfg.Forward = c.net.layer(c.t, string(id)), forwarder{string(id), c.net}
	wrap := func(l logs) logs { return l }
	if c.wrap != nil {
		wrap = c.wrap(id)
	}
	s, err := open(cfg, wrap)
	if err != nil {
		c.t.Fatal(err)
	}
	c.net.mu.Lock()
	c.net.store[id] = s
	c.net.mu.Unlock()
	c.t.Cleanup(func() { c.close(s) })
	return s
}

func (c *testCluster) close(s *Store) {
	c.t.Helper()
	c.net.mu.Lock()
	if c.net.store[s.cfg.ID] == s {
		delete(c.net.store, s.cfg.ID)
	}
	c.net.mu.Unlock()
	err := s.Close()
	if errors.Is(err, ErrNotStopped) { // the disk of a busy machine took seconds over a flush
		s.running.Wait()
		s.inside.Wait()
		err, s.closeErr = s.disk.Close(), nil
	}
	if err != nil {
		c.t.Errorf("close %s: %v", s.cfg.ID, err)
	}
}

// found makes a cluster of n voters with one tree.
func (c *testCluster) found(n int) []*Store {
	c.t.Helper()
	ids := []cluster.NodeID{"n-1", "n-2", "n-3", "n-4", "n-5"}[:n]
	if err := Bootstrap(c.config(ids[0]), &pb.InitCluster{ClusterId: "c-1"}, member(ids[0])); err != nil {
		c.t.Fatal(err)
	}
	stores := []*Store{c.open(ids[0])}
	ctx := c.ctx()
	first := stores[0]
	c.do(first, addTree("server"))
	for _, id := range ids[1:] {
		stores = append(stores, c.open(id))
		c.do(first, &pb.Command{Format: Format, Do: &pb.Command_PutMember{PutMember: &pb.PutMember{Member: FromMember(member(id))}}})
		c.asLeader(stores, func(s *Store) error { return s.AddNonVoter(ctx, id) })
	}
	for _, s := range stores[1:] {
		c.await(s, "catches up", s.CaughtUp)
		c.asLeader(stores, func(by *Store) error { return by.Promote(ctx, s.cfg.ID) })
	}
	for _, s := range stores {
		c.must(s.Barrier(ctx))
	}
	return stores
}

func (c *testCluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	c.t.Cleanup(cancel)
	return ctx
}

func (c *testCluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *testCluster) do(s *Store, cmd *pb.Command) {
	c.t.Helper()
	out, err := s.Do(c.ctx(), cmd)
	c.must(errors.Join(err, OutcomeErr(out)))
}

// mkdir proposes a directory: no content, no receipts.
func (c *testCluster) mkdir(s *Store, name string) manifest.Result {
	c.t.Helper()
	r, err := s.Propose(c.ctx(), makeDir(name))
	c.must(err)
	if len(r.Refused) > 0 {
		c.t.Fatalf("%s: %v", name, r.Refused)
	}
	return r
}

func makeDir(name string) manifest.Changeset {
	return manifest.Changeset{Tree: "server", Changes: []manifest.Change{write(name, 0, dir)}}
}

// await waits for what Watch should tell of.
func (c *testCluster) await(s *Store, what string, is func() bool) {
	c.t.Helper()
	news, stop := s.Watch()
	defer stop()
	limit := time.After(time.Minute)
	again := time.NewTicker(20 * time.Millisecond) // some of it (the age of a contact) is not told
	defer again.Stop()
	for !is() {
		select {
		case <-news:
		case <-again.C:
		case <-limit:
			c.t.Fatalf("%s: %s did not come true", s.cfg.ID, what)
		}
	}
}

func (c *testCluster) leader(stores []*Store) (leader *Store, others []*Store) {
	c.t.Helper()
	c.await(stores[0], "a leader", func() bool {
		leader, others = nil, nil
		for _, s := range stores {
			if s.raft.State() == raft.Leader {
				leader = s
			} else {
				others = append(others, s)
			}
		}
		return leader != nil
	})
	return leader, others
}

// asLeader has the leader do something. Leaders may change meanwhile, on a busy
// machine: then the next one is asked. It returns who has done it.
func (c *testCluster) asLeader(stores []*Store, do func(*Store) error) (leader *Store) {
	c.t.Helper()
	c.await(stores[0], "a leader does it", func() bool {
		leader, _ = c.leader(stores)
		err := do(leader)
		if err != nil {
			c.t.Logf("%s: %v", leader.cfg.ID, err)
		}
		return err == nil
	})
	return leader
}

// follows waits until a node knows of a leader, and is none: on a busy machine it may
// have become one.
func (c *testCluster) follows(s *Store) {
	c.t.Helper()
	c.await(s, "another one leads", func() bool {
		if s.raft.State() == raft.Leader {
			_ = s.Transfer(c.ctx())
		}
		id, ok := s.Leader()
		return ok && id != s.cfg.ID && s.Quorum()
	})
}

// agree waits until all have applied the same, and compares them.
func (c *testCluster) agree(stores ...*Store) {
	c.t.Helper()
	var want []byte
	for _, s := range stores {
		c.must(s.Barrier(c.ctx()))
	}
	for _, s := range stores {
		c.await(s, "the same state", func() bool {
			got := snapshotOf(c.t, s.machine)
			if want == nil {
				want = got
			}
			return string(got) == string(want)
		})
	}
}

func has(s *Store, name string) bool {
	v, ok := s.View("server")
	return ok && !v.Manifest.Entry(manifest.Path(name)).Absent()
}
