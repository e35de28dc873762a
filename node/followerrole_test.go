package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// snapshots runs a node until its log has a snapshot of what was committed
// before; then it is stopped.
func (g *gateway) snapshots(change func()) {
	g.t.Helper()
	g.runTuned(raftstore.Tuning{SnapshotInterval: 20 * time.Millisecond, SnapshotThreshold: 1})
	defer g.stop()
	change()
	eventually(g.t, func() error {
		all, err := os.ReadDir(dataDir(g.cfg.DataDir).raft() + "/snapshots")
		if err == nil && len(all) == 0 {
			err = fmt.Errorf("%s has no snapshot", g.cfg.Name)
		}
		return err
	})
}

// A member of Raft whose log has a snapshot becomes a follower and is started
// again: it begins where the snapshot says that it is a member of Raft, and is
// fed all the same.
func TestPromise_Converge_AFollowerWhoseSnapshotIsOlder(t *testing.T) {
	t.Parallel()
	top := alone(t, "gw1")
	f := newGateway(t, "f1")
	if err := f.join(top, top.token(time.Minute, 1)); err != nil {
		t.Fatal(err)
	}
	f.snapshots(func() {
		top.write("a", "1")
		everywhere(t, "a", "1", f)
	})
	f.run()
	if err := top.role("f1", "follower", false); err != nil {
		t.Fatal(err)
	}
	fed := func() error {
		s, err := f.status()
		if err == nil && (s.Upstream == "" || s.Node.Role != "follower") {
			err = fmt.Errorf("upstream %q, role %q", s.Upstream, s.Node.Role)
		}
		return err
	}
	eventually(t, fed)
	for i := range 2 {
		f.stop()
		f.run()
		text := fmt.Sprint("after start ", i)
		top.write("a", text)
		everywhere(t, "a", text, f)
		eventually(t, fed)
	}
}

// Who becomes a follower while it is away finds it out when it is back.
func TestPromise_Converge_MadeAFollowerWhileAway(t *testing.T) {
	t.Parallel()
	top := alone(t, "gw1")
	f := newGateway(t, "f1")
	if err := f.join(top, top.token(time.Minute, 1)); err != nil {
		t.Fatal(err)
	}
	f.run()
	top.write("a", "1")
	everywhere(t, "a", "1", f)
	f.stop()
	if err := top.role("f1", "follower", true); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		top.log.mu.Lock()
		defer top.log.mu.Unlock()
		if !strings.Contains(top.log.b.String(), "it is a follower now") {
			return errors.New("it is still in Raft")
		}
		return nil
	})
	top.cfg.Listen = top.address()
	top.stop() // and with it what Raft would still try to tell who has gone
	top.run()
	f.run()
	top.write("a", "2")
	everywhere(t, "a", "2", f)
}

// A follower that is removed while it is away says so when it is back.
func TestARemovedFollowerSaysSo(t *testing.T) {
	t.Parallel()
	top := alone(t, "gw1")
	f := newGateway(t, "f1").follow(top)
	top.write("a", "1")
	everywhere(t, "a", "1", f)
	f.stop()
	err := top.local(func(ctx context.Context, c pb.LocalClient) error {
		_, err := c.RemoveNode(ctx, &pb.RemoveNodeRequest{Node: "f1", Force: true})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.run()
	eventually(t, func() error {
		s, err := f.status()
		if err == nil && s.Node.Role != "removed" {
			err = fmt.Errorf("%+v", s.Node)
		}
		return err
	})
}
