package node

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// holds tells which of some contents a stopped node's blob store lacks.
func (g *gateway) lacks(contents ...string) (missing []string) {
	g.t.Helper()
	store, err := blob.Open(dataDir(g.cfg.DataDir).blobs(), blob.Options{})
	if err != nil {
		g.t.Fatal(err)
	}
	defer store.Close()
	for _, text := range contents {
		if !store.Has(manifest.DigestOf([]byte(text))) {
			missing = append(missing, text)
		}
	}
	return missing
}

func (g *gateway) role(node, role string, force bool) error {
	return g.local(func(ctx context.Context, c pb.LocalClient) error {
		_, err := c.NodeRole(ctx, &pb.NodeRoleRequest{Node: node, Role: role, Force: force})
		return err
	})
}

// complete waits until a node says that it holds all content, and knows of all that
// another one knows of.
func (g *gateway) complete(as *gateway) {
	g.t.Helper()
	eventually(g.t, func() error {
		newest, err := as.status()
		if err != nil {
			return err
		}
		s, err := g.status()
		if err == nil && s.Revision < newest.Revision {
			err = fmt.Errorf("%s knows of revision %d of %d", g.cfg.Name, s.Revision, newest.Revision)
		}
		if err != nil {
			return err
		}
		for _, m := range s.Members {
			if m.ID == s.Node.ID && (m.Content < s.Revision || m.Missing > 0) {
				return fmt.Errorf("%s holds the content up to %d of %d, %d blobs are missing", m.Name, m.Content, s.Revision, m.Missing)
			}
		}
		return nil
	})
}

// The voters of today are replaced one by one, by nodes that joined long after
// most was written: what was committed once, and is only in the history now,
// lies with all of the new voters, one of which has no tree at all.
func TestPromise_NoLoss_ContentFollowsTheVoters(t *testing.T) {
	t.Parallel()
	g := trio(t)
	var contents []string
	for i := range 8 {
		text := fmt.Sprintf("version %d, long overwritten in the end\n", i)
		contents = append(contents, text)
		g[i%3].write("a.xml", text)
		everywhere(t, "a.xml", text, g[:]...)
	}
	witness := newGateway(t, "witness")
	witness.cfg.Trees = nil
	fourth := newGateway(t, "gw4")
	for _, n := range []*gateway{witness, fourth} {
		if err := n.join(g[0], g[0].token(time.Minute, 1)); err != nil {
			t.Fatal(err)
		}
		n.run()
	}
	waitVoters(t, g[:], 5)
	if s, err := witness.status(); err != nil || s.Node.Role != "witness" {
		t.Errorf("the witness is a %s, %v", s.Node.Role, err)
	}
	for _, n := range g[1:] {
		if err := fourth.role(n.cfg.Name, "nonvoter", false); err != nil {
			t.Fatal(err)
		}
		n.stop() // it takes its content with it
	}
	waitVoters(t, []*gateway{g[0], fourth, witness}, 3)
	g[0].write("a.xml", "the last one\n")
	everywhere(t, "a.xml", "the last one\n", g[0], fourth)
	contents = append(contents, "the last one\n")
	witness.complete(g[0])
	fourth.complete(g[0])
	for _, n := range []*gateway{g[0], fourth, witness} {
		n.stop()
		if missing := n.lacks(contents...); len(missing) > 0 {
			t.Errorf("%s votes, and lacks %q", n.cfg.Name, missing)
		}
	}
}

// A voter lost its blob store and nothing else: it is filled again, with what is
// only in the history too.
func TestPromise_NoLoss_AWipedStoreIsFilledAgain(t *testing.T) {
	t.Parallel()
	g := trio(t)
	for _, text := range []string{"first\n", "second\n"} {
		g[0].write("a.xml", text)
		everywhere(t, "a.xml", text, g[:]...)
	}
	g[2].stop()
	if err := os.RemoveAll(dataDir(g[2].cfg.DataDir).blobs()); err != nil {
		t.Fatal(err)
	}
	g[2].run()
	eventually(t, func() error {
		s, err := g[2].status()
		if err == nil && (s.Revision == 0 || s.Blobs.Count == 0) {
			err = fmt.Errorf("revision %d, %d blobs", s.Revision, s.Blobs.Count)
		}
		return err
	})
	g[2].complete(g[0])
	g[2].stop()
	if missing := g[2].lacks("first\n", "second\n"); len(missing) > 0 {
		t.Errorf("a wiped store lacks %q", missing)
	}
}

// A tree that only one of the nodes has: the others hold its content all the
// same, so that its author may be lost.
func TestPromise_NoLoss_ContentOfATreeThatIsElsewhere(t *testing.T) {
	t.Parallel()
	g := trio(t)
	everyoneKnows := func() { waitVoters(t, g[:], 3) }
	g[1].stop()
	g[0].stop()
	g[0].cfg.Trees = append(g[0].cfg.Trees, g[0].cfg.Trees[0])
	g[0].cfg.Trees[1].Name, g[0].cfg.Trees[1].Path = "tenants", g[0].cfg.Trees[0].Path+"-tenants"
	if err := makeRoots([]string{g[0].cfg.Trees[1].Path}); err != nil {
		t.Fatal(err)
	}
	g[0].run()
	server := g[0].cfg.Trees
	g[0].cfg.Trees = server[1:] // write goes to the first
	g[0].write("t.xml", "of a tree that gw2 has not\n")
	g[0].cfg.Trees = server
	eventually(t, func() error {
		s, err := g[0].status()
		if err == nil && (len(s.Trees) < 2 || s.Trees[1].Files != 1) {
			err = fmt.Errorf("%+v", s.Trees)
		}
		return err
	})
	g[1].run() // it was away when that was committed
	everyoneKnows()
	eventually(t, func() error {
		s, err := g[1].status()
		if err == nil && s.Revision == 0 {
			err = fmt.Errorf("revision %d", s.Revision)
		}
		return err
	})
	g[1].complete(g[0])
	g[1].stop()
	if missing := g[1].lacks("of a tree that gw2 has not\n"); len(missing) > 0 {
		t.Errorf("a voter without the tree lacks %q", missing)
	}
}

func TestOperatorIsToldWhyNot(t *testing.T) {
	t.Parallel()
	g := trio(t)
	for _, c := range []struct{ node, role, says string }{
		{"gw9", "voter", "no member is called"},
		{"gw1", "king", "no role"},
	} {
		if err := g[1].role(c.node, c.role, false); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s → %s: %v, want a word on %q", c.node, c.role, err, c.says)
		}
	}
	if err := g[0].role("gw3", "nonvoter", false); err != nil {
		t.Fatal(err)
	}
	if err := g[0].role("gw2", "nonvoter", false); err != nil { // one is enough
		t.Fatal(err)
	}
	if err := g[0].role("gw1", "nonvoter", true); err == nil || !strings.Contains(err.Error(), "the only voter") {
		t.Errorf("the last voter: %v", err)
	}
	// What was chosen sticks: a pair of ready nodes is there, and nobody takes it.
	g[0].write("a.xml", "x\n")
	everywhere(t, "a.xml", "x\n", g[:]...)
	s, err := g[0].status()
	if err != nil || s.Voters != 1 {
		t.Fatalf("%d voters, %v", s.Voters, err)
	}
	for _, n := range []string{"gw2", "gw3"} {
		if err := g[0].role(n, "", false); err != nil {
			t.Fatal(err)
		}
	}
	waitVoters(t, g[:], 3)
}
