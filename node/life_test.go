package node

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/transport"
)

func (l *lockedBuffer) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (g *gateway) says(text string) error {
	if strings.Contains(g.log.text(), text) {
		return nil
	}
	return errors.New(g.cfg.Name + " does not say " + text)
}

func TestWhoseWordOnThisNodeCounts(t *testing.T) {
	const long = leaderless
	for _, c := range []struct {
		w    word
		want string // of the doubt
	}{
		{word{life: true, read: true, member: true}, ""},
		{word{life: true, read: true, member: true, removed: true}, ""}, // it was not committed
		{word{life: true, read: true, named: true, alone: long}, "no member"},
		{word{life: true, named: true, alone: long}, ""},
		{word{life: true, named: true, alone: long - 1}, "reads its log first"},
		{word{life: true, alone: long}, "does not know it"},
		{word{life: true, named: true, removed: true, alone: long}, "was removed"},
		// A copy must not vote: it stops at once, whoever says so.
		{word{}, ""},
		{word{named: true, removed: true}, "was removed"},
		{word{read: true}, "no member"},
	} {
		if got := c.w.doubt(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.w, got, c.want)
		}
	}
}

// A node is removed while it is off, and recovered where it hears nobody. The
// others start one by one: none of them gives up what the majority has committed.
func TestPromise_NoLoss_ARemovedNodeThatRecoveredTakesNobodyAlong(t *testing.T) {
	t.Parallel()
	g := trio(t)
	for _, n := range g {
		n.cfg.Listen = n.address()
	}
	g[2].stop()
	err := g[0].local(func(ctx context.Context, c pb.LocalClient) error {
		_, err := c.RemoveNode(ctx, &pb.RemoveNodeRequest{Node: "gw3"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	waitVoters(t, g[:2], 2)
	g[0].write("after.xml", "by the majority\n")
	everywhere(t, "after.xml", "by the majority\n", g[:2]...)
	g[0].stop()
	g[1].stop()
	g[2].recover()
	g[2].serve()
	g[0].serve()
	eventually(t, func() error { return g[0].says("not heeded, it was removed") })
	g[1].serve()
	waitVoters(t, g[:2], 2)
	for _, n := range g[:2] {
		eventually(t, func() error { return inTheLog(n, 1) })
		if s, err := n.status(); err != nil || s.Incarnation != 1 {
			t.Errorf("%s: incarnation %d, %v", n.cfg.Name, s.Incarnation, err)
		}
	}
	everywhere(t, "after.xml", "by the majority\n", g[:2]...)
}

// A certificate is stolen, and the log is not: whoever holds it can make up a
// life of the cluster, and no node ends for it.
func TestPromise_Available_AMadeUpLifeEndsNobody(t *testing.T) {
	t.Parallel()
	g := trio(t)
	g[2].stop()
	stolen, err := transport.LoadIdentity(identityFiles(g[2].cfg))
	if err != nil {
		t.Fatal(err)
	}
	f, err := dataDir(g[2].cfg.DataDir).readNode()
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := transport.DialAs(t.Context(), g[0].address(), stolen, f.Cluster, transport.Instance{Incarnation: cluster.Incarnation(99 << 32), Start: 99, Nonce: "made-up"})
	if err == nil {
		_ = conn.Close()
		t.Fatal("they speak")
	}
	eventually(t, func() error { return g[0].says("it is not believed") })
	g[0].write("on.xml", "it goes on\n")
	everywhere(t, "on.xml", "it goes on\n", g[:2]...)
	if s, err := g[0].status(); err != nil || s.Incarnation != 1 || !strings.Contains(s.DoubtedLife, "not believed") {
		t.Errorf("incarnation %d, %q, %v", s.Incarnation, s.DoubtedLife, err)
	}
}
