package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// cluster is some nodes on this machine, each in a directory of its own.
type cluster struct {
	t      testing.TB
	dir    string
	nodes  []*node
	reader *reader
	extra  []string    // flags of init and join
	place  func(*node) // settles where a node that is added lives; nil: on this host
	undo   []func()    // at the end, the latest first, once no daemon runs
	keep   bool        // leave all in place where the test has failed
}

// newCluster boots a cluster of count nodes with empty trees and waits until
// all of them vote. Everything ends with the test. More flags go to `init`
// and `join` alike.
func newCluster(t testing.TB, count int, flags ...string) *cluster {
	t.Helper()
	c := emptyCluster(t, flags...)
	c.boot(count)
	return c
}

// boot is newCluster's second half.
func (c *cluster) boot(count int) {
	c.t.Helper()
	first := c.add()
	first.must("init", c.joinFlags(first)...)
	first.start()
	for range count - 1 {
		c.join()
	}
	c.waitVoters(count)
}

// emptyCluster is the directory alone. Its path is short: a Unix socket's
// path is bounded, and test names here are long.
func emptyCluster(t testing.TB, flags ...string) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "gs-")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir, reader: newReader(), extra: flags}
	t.Cleanup(c.close)
	return c
}

// in makes a subtest the one that fails when something does.
func (c *cluster) in(t *testing.T) {
	outer := c.t
	set := func(t testing.TB) {
		c.t = t
		for _, n := range c.nodes {
			n.t = t
		}
	}
	set(t)
	t.Cleanup(func() { set(outer) })
}

func (c *cluster) close() {
	for _, n := range c.nodes {
		n.stop()
	}
	kept := c.t.Failed() && (c.keep || os.Getenv("GATESYNC_KEEP") != "")
	if !kept {
		for _, undo := range slices.Backward(c.undo) {
			undo()
		}
	}
	if c.t.Failed() {
		for _, n := range c.nodes {
			s := n.logTail(40)
			c.t.Logf("---- the end of %s's log\n%s", n.name, s)
		}
	}
	if kept {
		c.t.Logf("left behind: %s", c.dir)
		return
	}
	removeDir(c.t, c.dir)
}

// tempDir is t.TempDir for what processes write into that end a little after who
// started them.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeDir(t, dir) })
	return dir
}

// removeDir removes a directory; whoever is about to end may still write there.
func removeDir(t testing.TB, dir string) {
	t.Helper()
	if err := poll(context.Background(), patience, func() error { return os.RemoveAll(dir) }); err != nil {
		t.Error(err)
	}
}

// add makes room for a node that is in no cluster yet.
func (c *cluster) add() *node {
	c.t.Helper()
	name := fmt.Sprintf("gw%d", len(c.nodes)+1)
	home := filepath.Join(c.dir, name)
	n := &node{t: c.t, name: name, data: filepath.Join(home, "data"), tree: filepath.Join(home, "tree"), addr: freeAddr(c.t), http: freeAddr(c.t)}
	if c.place != nil {
		c.place(n)
	}
	if err := os.MkdirAll(n.tree, 0o755); err != nil {
		c.t.Fatal(err)
	}
	c.nodes = append(c.nodes, n)
	return n
}

func (c *cluster) joinFlags(n *node) []string {
	flags := []string{"--name", n.name, "--listen", n.addr}
	if n.tree == "" {
		return append(flags, "--witness")
	}
	return append(append(flags, "--tree", "server="+n.tree), c.extra...)
}

// join adds a node, lets it join through the first node that runs, and
// starts it.
func (c *cluster) join(flags ...string) *node {
	c.t.Helper()
	n := c.add()
	c.admit(n, flags...)
	return n
}

// admit is join for a node that add has made, perhaps with a tree in place.
func (c *cluster) admit(n *node, flags ...string) {
	c.t.Helper()
	via := c.running()[0]
	args := append([]string{via.addr, "--token", via.token()}, c.joinFlags(n)...)
	n.must("join", append(args, flags...)...)
	n.start()
}

var tokenForm = regexp.MustCompile(`\bgs1-\S+`)

// token asks for a join token.
func (n *node) token(flags ...string) string {
	n.t.Helper()
	out := n.must("token", flags...)
	tok := tokenForm.FindString(out)
	if tok == "" {
		n.t.Fatalf("no token in %q", out)
	}
	return tok
}

// running lists the nodes whose daemon runs.
func (c *cluster) running() []*node {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n.daemon == nil })
}

// gateways lists those of them that have a tree.
func (c *cluster) gateways() []*node {
	return slices.DeleteFunc(c.running(), func(n *node) bool { return n.tree == "" })
}

// except lists the running nodes without n.
func (c *cluster) except(n *node) []*node {
	return slices.DeleteFunc(c.running(), func(m *node) bool { return m == n })
}

// waitVoters waits until every running node sees count living voters.
func (c *cluster) waitVoters(count int) {
	c.t.Helper()
	eventually(c.t, 60*time.Second, fmt.Sprintf("%d voters", count), func() error {
		for _, n := range c.running() {
			s, err := n.status()
			if err != nil {
				return err
			}
			voters := 0
			for _, m := range s.Members {
				if m.Alive && m.Votes {
					voters++
				}
			}
			if voters != count || s.Leader == "" {
				return fmt.Errorf("%s sees %+v, leader %q", n.name, s.Members, s.Leader)
			}
		}
		return nil
	})
}

// leader waits until the running nodes name one leader that runs.
func (c *cluster) leader(limit time.Duration) *node {
	c.t.Helper()
	var found *node
	eventually(c.t, limit, "one leader", func() error {
		found = nil
		for _, n := range c.running() {
			s, err := n.status()
			if err != nil {
				return err
			}
			if s.Leader == "" {
				return fmt.Errorf("%s knows no leader", n.name)
			}
			// The leader's id, or its name.
			for _, m := range s.Members {
				if m.ID == s.Leader || m.Name == s.Leader {
					i := slices.IndexFunc(c.running(), func(r *node) bool { return r.name == m.Name })
					if i < 0 {
						return fmt.Errorf("%s takes %s for the leader, which does not run", n.name, m.Name)
					}
					if found != nil && found != c.running()[i] {
						return fmt.Errorf("two leaders: %s and %s", found.name, m.Name)
					}
					found = c.running()[i]
				}
			}
		}
		if found == nil {
			return errors.New("no member is the leader")
		}
		return nil
	})
	return found
}

// read takes the snapshot of a node's tree once it holds still.
func (c *cluster) read(n *node) snapshot {
	c.t.Helper()
	var s snapshot
	eventually(c.t, 30*time.Second, n.name+"'s tree holds still", func() (err error) {
		s, err = c.reader.read(n.tree)
		return err
	})
	return s
}

// waitTree waits until the trees of these nodes (none named: all that run)
// hold exactly want, and returns how long it took.
func (c *cluster) waitTree(limit time.Duration, want snapshot, nodes ...*node) time.Duration {
	c.t.Helper()
	if len(nodes) == 0 {
		nodes = c.gateways()
	}
	return eventually(c.t, limit, "equal trees", func() error {
		for _, n := range nodes {
			got, err := c.reader.read(n.tree)
			if err == nil {
				err = want.Differs(got)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
		}
		return nil
	})
}

// waitEqual waits until all running nodes hold one and the same tree and say
// that nothing is on its way, and returns that tree.
func (c *cluster) waitEqual(limit time.Duration) snapshot {
	c.t.Helper()
	tree, err := c.equal(limit)
	if err != nil {
		c.t.Fatal(err)
	}
	return tree
}

// equal is waitEqual for any goroutine.
func (c *cluster) equal(limit time.Duration) (first snapshot, err error) {
	err = poll(c.t.Context(), limit, func() error {
		for _, n := range c.running() {
			if a := n.ask("wait", "--timeout", "10s"); a.code != 0 {
				return fmt.Errorf("wait on %s: exit code %d: %s", n.name, a.code, a.stderr)
			}
		}
		for i, n := range c.gateways() {
			got, err := c.reader.read(n.tree)
			if err == nil && i == 0 {
				first = got
				continue
			}
			if err == nil {
				err = first.Differs(got)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("equal trees: not within %v: %w", patient(limit), err)
	}
	return first, err
}

// nextPort is where the search for a free port goes on; below the range that
// the kernel takes for outgoing connections, so that a peer that dials a dead
// node cannot sit on its port when it returns.
var nextPort atomic.Int64

// freeAddr returns a loopback address that nobody listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	const low, high = 15000, 32000
	nextPort.CompareAndSwap(0, int64(os.Getpid()*37%(high-low)))
	for range high - low {
		addr := fmt.Sprintf("127.0.0.1:%d", low+nextPort.Add(1)%(high-low))
		l, err := net.Listen("tcp", addr)
		if err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no free port on the loopback")
	return ""
}
