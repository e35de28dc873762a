package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/node/local"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// gateway is one node of a test: its settings, its tree, and, while it runs,
// how to stop it.
type gateway struct {
	t    *testing.T
	cfg  config.Config
	log  *lockedBuffer
	stop func()
}

// lockedBuffer keeps a node's log for the end of a test that fails.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func newGateway(t *testing.T, name string) *gateway {
	t.Helper()
	dir := t.TempDir()
	cfg := config.Default()
	cfg.DataDir, cfg.Name = filepath.Join(dir, "data"), name
	cfg.Listen, cfg.HTTP = "127.0.0.1:0", ""
	cfg.FreeReserve = 1 << 20
	cfg.Trees = []config.Tree{{Name: "server", Path: filepath.Join(dir, "tree")}}
	g := &gateway{t: t, cfg: cfg, log: &lockedBuffer{}}
	t.Cleanup(func() {
		if g.stop != nil {
			g.stop()
		}
		if t.Failed() {
			lines := strings.Split(g.log.b.String(), "\n")
			t.Logf("--- %s\n%s", name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
	return g
}

// run starts the node and returns once it answers. Its stop must be clean. A
// busy disk may take its time: what were left behind would still write while the
// test's directories are removed.
func (g *gateway) run() *gateway {
	g.t.Helper()
	return g.runTuned(raftstore.Tuning{})
}

func (g *gateway) runTuned(tuning raftstore.Tuning) *gateway {
	g.t.Helper()
	n, err := Open(g.cfg, Options{Version: "test", Patience: patience, Log: slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Tuning: tuning})
	if err != nil {
		g.t.Fatalf("%s: %v", g.cfg.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	g.stop = func() {
		g.t.Helper()
		g.stop = nil
		cancel()
		if err := <-ended; err != nil {
			g.t.Errorf("%s ended with %v", g.cfg.Name, err)
		}
	}
	eventually(g.t, func() error { _, err := g.status(); return err })
	return g
}

func (g *gateway) local(fn func(context.Context, pb.LocalClient) error) error {
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	conn, err := local.Dial(ctx, g.cfg.DataDir)
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(ctx, pb.NewLocalClient(conn))
}

func (g *gateway) status() (s Status, err error) {
	err = g.local(func(ctx context.Context, c pb.LocalClient) error {
		res, err := c.Status(ctx, &pb.StatusRequest{})
		if err != nil {
			return err
		}
		return json.Unmarshal(res.GetJson(), &s)
	})
	return s, err
}

func (g *gateway) token(ttl time.Duration, uses uint32) (tok string) {
	g.t.Helper()
	err := g.local(func(ctx context.Context, c pb.LocalClient) error {
		res, err := c.Token(ctx, &pb.TokenRequest{TtlNs: int64(ttl), Uses: uses})
		tok = res.GetToken()
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return tok
}

// address is where the node listens now.
func (g *gateway) address() string {
	g.t.Helper()
	s, err := g.status()
	if err != nil {
		g.t.Fatal(err)
	}
	return s.Node.Address
}

func (g *gateway) join(via *gateway, token string) error {
	_, err := Join(g.t.Context(), g.cfg, JoinOptions{Via: via.address(), Token: token, Version: "test"})
	return err
}

func (g *gateway) write(path, text string) {
	g.t.Helper()
	file := filepath.Join(g.cfg.Trees[0].Path, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) reads(path, want string) error {
	b, err := os.ReadFile(filepath.Join(g.cfg.Trees[0].Path, path))
	if err != nil {
		return err
	}
	if string(b) != want {
		return fmt.Errorf("%s on %s reads %q, want %q", path, g.cfg.Name, b, want)
	}
	return nil
}

// patience ends a test that hangs: no machine is so busy.
const patience = 2 * time.Minute

func eventually(t *testing.T, ask func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %v", patience, err)
		case <-tick.C:
		}
	}
}

// everywhere waits until a file reads the same on all nodes.
func everywhere(t *testing.T, path, want string, nodes ...*gateway) {
	t.Helper()
	eventually(t, func() error {
		for _, g := range nodes {
			if err := g.reads(path, want); err != nil {
				return err
			}
		}
		return nil
	})
}

// trio boots three nodes and waits until all of them vote.
func trio(t *testing.T) [3]*gateway {
	t.Helper()
	var g [3]*gateway
	for i := range g {
		g[i] = newGateway(t, fmt.Sprintf("gw%d", i+1))
	}
	if _, err := Init(t.Context(), g[0].cfg); err != nil {
		t.Fatal(err)
	}
	g[0].run()
	for _, n := range g[1:] {
		if err := n.join(g[0], g[0].token(time.Minute, 1)); err != nil {
			t.Fatal(err)
		}
		n.run()
	}
	waitVoters(t, g[:], 3)
	return g
}

func waitVoters(t *testing.T, nodes []*gateway, want int) {
	t.Helper()
	eventually(t, func() error {
		for _, g := range nodes {
			s, err := g.status()
			if err != nil {
				return err
			}
			voters := 0
			for _, m := range s.Members {
				if m.Alive && m.Votes {
					voters++
				}
			}
			if voters != want || s.Leader == "" {
				return fmt.Errorf("%s sees %d voters of %+v, leader %q", g.cfg.Name, voters, s.Members, s.Leader)
			}
		}
		return nil
	})
}

func TestThreeNodesHoldTheSameTree(t *testing.T) {
	t.Parallel()
	g := trio(t)
	for i, n := range g {
		path, text := fmt.Sprintf("api/from-%d.xml", i), fmt.Sprintf("written on %s\n", n.cfg.Name)
		n.write(path, text)
		everywhere(t, path, text, g[:]...)
	}
	if err := os.Remove(filepath.Join(g[1].cfg.Trees[0].Path, "api/from-0.xml")); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		for _, n := range g {
			if _, err := os.Stat(filepath.Join(n.cfg.Trees[0].Path, "api/from-0.xml")); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s still has the deleted file: %v", n.cfg.Name, err)
			}
		}
		return nil
	})
	g[2].waitsFor(3)
	digests := map[string]bool{}
	for _, n := range g {
		s, err := n.status()
		if err != nil {
			t.Fatal(err)
		}
		digests[s.Trees[0].RootDigest] = true
		if s.Trees[0].Files != 2 || s.Trees[0].Held != 0 {
			t.Errorf("%s: %+v", n.cfg.Name, s.Trees[0])
		}
	}
	if len(digests) != 1 {
		t.Errorf("root digests differ: %v", digests)
	}
}

func TestRestartAtAnotherAddress(t *testing.T) {
	t.Parallel()
	g := trio(t)
	was := g[1].address()
	g[1].stop()
	g[0].write("while-away.xml", "x\n")
	everywhere(t, "while-away.xml", "x\n", g[0], g[2])
	g[1].run() // port 0: another port
	if now := g[1].address(); now == was {
		t.Fatalf("still at %s", was)
	}
	everywhere(t, "while-away.xml", "x\n", g[1])
	g[1].write("back.xml", "y\n")
	everywhere(t, "back.xml", "y\n", g[:]...)
	eventually(t, func() error {
		s, err := g[0].status()
		if err != nil {
			return err
		}
		for _, m := range s.Members {
			if m.Name == "gw2" && m.Address == g[1].address() {
				return nil
			}
		}
		return fmt.Errorf("gw1 sees %+v", s.Members)
	})
}

func TestAllAddressesChangeAtOnceAndASeedHelps(t *testing.T) {
	t.Parallel()
	g := trio(t)
	g[0].write("before.xml", "x\n")
	everywhere(t, "before.xml", "x\n", g[:]...)
	for _, n := range g {
		n.stop()
	}
	g[0].run()
	for _, n := range g[1:] {
		n.cfg.Seeds = []string{g[0].address()}
		n.run()
	}
	waitVoters(t, g[:], 3)
	g[2].write("after.xml", "y\n")
	everywhere(t, "after.xml", "y\n", g[:]...)
}

func TestWhoMayNotJoinIsToldWhy(t *testing.T) {
	t.Parallel()
	first, other := newGateway(t, "gw1"), newGateway(t, "gw1")
	for _, g := range []*gateway{first, other} {
		if _, err := Init(t.Context(), g.cfg); err != nil {
			t.Fatal(err)
		}
		g.run()
	}
	used := first.token(time.Hour, 1)
	if err := newGateway(t, "used").join(first, used); err != nil {
		t.Fatal(err)
	}
	expired := first.token(time.Nanosecond, 1)
	good := first.token(time.Hour, 100)
	for name, c := range map[string]struct {
		prepare func(*gateway, *JoinOptions)
		says    string
	}{
		"used up token":     {func(_ *gateway, o *JoinOptions) { o.Token = used }, "used up"},
		"expired token":     {func(_ *gateway, o *JoinOptions) { o.Token = expired }, "expired"},
		"other fingerprint": {func(_ *gateway, o *JoinOptions) { o.Token = other.token(time.Minute, 1) }, "not of the cluster that made the token"},
		"no token":          {func(_ *gateway, o *JoinOptions) { o.Token = "secret" }, "gatesync token"},
		"name taken":        {func(g *gateway, _ *JoinOptions) { g.cfg.Name = "gw1" }, "gw1"},
		"clock":             {func(_ *gateway, o *JoinOptions) { o.Now = func() time.Time { return time.Now().Add(3 * time.Hour) } }, "Set both right"},
		"unknown tree":      {func(g *gateway, _ *JoinOptions) { g.cfg.Trees[0].Name = "confg" }, "does not know confg"},
		"other's root": {func(g *gateway, _ *JoinOptions) {
			dir := filepath.Join(g.cfg.Trees[0].Path, ".gatesync")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "marker.json"), []byte(`{"cluster":"c-elsewhere"}`), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "belongs to cluster c-elsewhere"},
		"other's data directory": {func(g *gateway, _ *JoinOptions) {
			if _, err := Init(t.Context(), g.cfg); err != nil {
				t.Fatal(err)
			}
		}, "is already node"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "'", ""))
			o := JoinOptions{Via: first.address(), Token: good, Version: "test"}
			c.prepare(g, &o)
			_, err := Join(t.Context(), g.cfg, o)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want a word on %q", err, c.says)
			}
		})
	}
	// What was refused left nothing behind that is in the way.
	g := newGateway(t, "second-try")
	if err := g.join(first, expired); err == nil {
		t.Error("an expired token was good")
	}
	if err := g.join(first, good); err != nil {
		t.Error(err)
	}
}

func TestInitRefusesWhatIsThere(t *testing.T) {
	g := newGateway(t, "gw1")
	if _, err := Init(t.Context(), g.cfg); err != nil {
		t.Fatal(err)
	}
	var exists *ExistsError
	if _, err := Init(t.Context(), g.cfg); !errors.As(err, &exists) {
		t.Errorf("second init: %v", err)
	}
	g.run()
	var running *RunningError
	if _, err := Open(g.cfg, Options{}); !errors.As(err, &running) {
		t.Errorf("second daemon: %v", err)
	}
	again := newGateway(t, "gw2")
	again.cfg.Trees = g.cfg.Trees
	eventually(t, func() error {
		_, err := os.Stat(filepath.Join(g.cfg.Trees[0].Path, ".gatesync", "marker.json"))
		return err
	})
	if _, err := Init(t.Context(), again.cfg); err == nil || !strings.Contains(err.Error(), "belongs to cluster") {
		t.Errorf("a marked root: %v", err)
	}
}

func TestResyncWithoutDaemon(t *testing.T) {
	t.Parallel()
	g := trio(t)
	g[2].stop()
	g[0].write("from-gw1.xml", "x\n")
	everywhere(t, "from-gw1.xml", "x\n", g[0], g[1])
	g[2].write("from-gw3.xml", "y\n")
	dry := func() (diffs []string) {
		err := Resync(t.Context(), g[2].cfg, ResyncOptions{DryRun: true, Log: quiet()}, func(ev *pb.ResyncEvent) error {
			if d := ev.GetDifference(); d != nil {
				diffs = append(diffs, fmt.Sprintf("%s %s %v", d.GetWhat(), d.GetPath(), d.GetLocal()))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return diffs
	}
	if got := strings.Join(dry(), ", "); got != "add from-gw1.xml false, add from-gw3.xml true" {
		t.Errorf("dry run: %s", got)
	}
	if err := g[2].reads("from-gw1.xml", "x\n"); err == nil {
		t.Error("the dry run changed the tree")
	}
	var sum *pb.Summary
	err := Resync(t.Context(), g[2].cfg, ResyncOptions{Log: quiet()}, func(ev *pb.ResyncEvent) error {
		if ev.GetSummary() != nil {
			sum = ev.GetSummary()
		}
		return nil
	})
	if err != nil || sum.GetHeld() != 0 || sum.GetApplied() < sum.GetRevision() {
		t.Fatalf("%v %v", sum, err)
	}
	if err := g[2].reads("from-gw1.xml", "x\n"); err != nil {
		t.Error(err)
	}
	everywhere(t, "from-gw3.xml", "y\n", g[:]...)
	if got := dry(); len(got) != 0 {
		t.Errorf("still differs: %v", got)
	}
}

func TestRemovedNodeIsOut(t *testing.T) {
	t.Parallel()
	g := trio(t)
	err := g[0].local(func(ctx context.Context, c pb.LocalClient) error {
		_, err := c.RemoveNode(ctx, &pb.RemoveNodeRequest{Node: "gw3"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	waitVoters(t, g[:2], 2) // both have read of it
	g[1].write("without-gw3.xml", "x\n")
	everywhere(t, "without-gw3.xml", "x\n", g[:2]...)
	remove := func(n *gateway) error {
		return n.local(func(ctx context.Context, c pb.LocalClient) error {
			_, err := c.RemoveNode(ctx, &pb.RemoveNodeRequest{Node: "gw3"})
			return err
		})
	}
	if err := remove(g[1]); err == nil || !strings.Contains(err.Error(), `no member is called "gw3"`) {
		t.Errorf("removed again: %v", err)
	}
	// Nobody has to tell it by the log: that the others refuse it is enough.
	eventually(t, func() error {
		if s, err := g[2].status(); err != nil || s.Node.Role != "removed" || s.Quorum {
			return fmt.Errorf("the removed node says that it is a %s (quorum: %t), %v", s.Node.Role, s.Quorum, err)
		}
		return nil
	})
	if err := remove(g[2]); !errors.Is(err, cluster.ErrNotMember) || errors.Is(err, cluster.ErrNoQuorum) {
		t.Errorf("a removed node says %v, want ErrNotMember", err)
	}
	g[2].write("stays-here.xml", "y\n")
	g[2].stop()
	g[2].run()
	if err := g[0].reads("stays-here.xml", "y\n"); err == nil {
		t.Error("a removed node's edit was taken")
	}
}
