package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/node/local"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (g *gateway) propose(p local.Proposal) (res manifest.Result, err error) {
	err = g.local(func(ctx context.Context, c pb.LocalClient) error {
		res, err = local.Propose(ctx, c, p)
		return err
	})
	return res, err
}

// read is a linearizable read of some paths.
func (g *gateway) read(paths ...string) (at manifest.Revision, nodes map[manifest.Path]manifest.Node) {
	g.t.Helper()
	req := &pb.ReadTreeRequest{Tree: "server", Linearizable: true}
	for _, p := range paths {
		req.Paths = append(req.Paths, []byte(p))
	}
	nodes = map[manifest.Path]manifest.Node{}
	err := g.local(func(ctx context.Context, c pb.LocalClient) (err error) {
		at, err = local.Read(ctx, c, req, func(p manifest.Path, n manifest.Node) error { nodes[p] = n; return nil })
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return at, nodes
}

func file(path, text string, expect manifest.Revision) local.Change {
	return local.Change{
		Change:  manifest.Change{Path: manifest.Path(path), Expect: expect, New: manifest.Entry{Kind: manifest.File}},
		Content: strings.NewReader(text),
	}
}

func entryAt(path string, e manifest.Entry, expect manifest.Revision) local.Change {
	return local.Change{Change: manifest.Change{Path: manifest.Path(path), Expect: expect, New: e}}
}

func server(changes ...local.Change) local.Proposal {
	return local.Proposal{Tree: "server", Changes: changes}
}

func allOrNothing(changes ...local.Change) local.Proposal {
	return local.Proposal{Tree: "server", Atomic: true, Changes: changes}
}

func TestAProposalStandsOnEveryNodeAndIsReadAtOnce(t *testing.T) {
	t.Parallel()
	g := trio(t)
	dir := manifest.Entry{Kind: manifest.Dir}
	p := allOrNothing(entryAt("api", dir, 0), file("api/a.xml", "one\n", 0), file("api/empty.xml", "", 0),
		entryAt("api/link", manifest.Entry{Kind: manifest.Symlink, Target: "a.xml"}, 0))
	p.Message = "first"
	res, err := g[0].propose(p)
	if err != nil || len(res.Refused) > 0 || res.Revision == 0 {
		t.Fatal(res, err)
	}
	for _, n := range g {
		at, nodes := n.read("api", "api/a.xml", "api/empty.xml", "api/link", "absent")
		if at < res.Revision || len(nodes) != 4 {
			t.Errorf("%s reads %v at %d after revision %d was acknowledged", n.cfg.Name, nodes, at, res.Revision)
		}
		a := nodes["api/a.xml"]
		if a.Revision != res.Revision || a.Entry.Mode != 0o644 || a.Entry.Digest != manifest.DigestOf([]byte("one\n")) || a.Entry.Size != 4 {
			t.Errorf("%s reads %v of revision %d", n.cfg.Name, a.Entry, a.Revision)
		}
	}
	everywhere(t, "api/a.xml", "one\n", g[:]...)
	everywhere(t, "api/link", "one\n", g[:]...)
	everywhere(t, "api/empty.xml", "", g[:]...)

	// It is in the history as what it is.
	err = g[1].local(func(ctx context.Context, c pb.LocalClient) error {
		stream, err := c.Log(ctx, &pb.LogRequest{Limit: 1, Paths: true})
		if err != nil {
			return err
		}
		m, err := stream.Recv()
		if err == nil && (m.GetOrigin().GetKind() != uint32(manifest.FromAPI) || m.GetMessage() != "first" || len(m.GetChanges()) != 4) {
			t.Errorf("history: %v", m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	// An edit on disk goes on from it, and no conflict comes of it anywhere.
	g[2].write("api/a.xml", "two\n")
	everywhere(t, "api/a.xml", "two\n", g[:]...)
	_, nodes := g[1].read("api/a.xml")
	if _, err := g[1].propose(server(entryAt("api/a.xml", manifest.Entry{}, nodes["api/a.xml"].Revision))); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		for _, n := range g {
			if _, err := os.Lstat(filepath.Join(n.cfg.Trees[0].Path, "api/a.xml")); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("%s still has it: %v", n.cfg.Name, err)
			}
		}
		return nil
	})
	for _, n := range g {
		s, err := n.status()
		if err != nil || s.Trees[0].Conflicts != 0 || s.Trees[0].Held != 0 {
			t.Errorf("%s: %+v, %v", n.cfg.Name, s.Trees, err)
		}
	}
}

func TestARefusalOfAProposalTellsTheRevisionThatStands(t *testing.T) {
	g := newGateway(t, "gw1")
	if _, err := Init(t.Context(), g.cfg); err != nil {
		t.Fatal(err)
	}
	g.run()
	first, err := g.propose(server(file("a", "1", 0), file("b", "1", 0)))
	if err != nil || first.Revision == 0 || len(first.Refused) > 0 {
		t.Fatal(first, err)
	}
	// Per path: what conflicts is refused, the rest commits.
	res, err := g.propose(server(file("a", "2", first.Revision), file("b", "2", first.Revision+7)))
	want := []manifest.Refusal{{Path: "b", Reason: manifest.Conflict, Current: first.Revision}}
	if err != nil || res.Revision != first.Revision+1 || !slices.Equal(res.Refused, want) {
		t.Fatalf("%+v, %v; want %+v", res, err, want)
	}
	// Atomic: all or nothing.
	res, err = g.propose(allOrNothing(file("a", "3", res.Revision), file("b", "3", res.Revision)))
	want = []manifest.Refusal{
		{Path: "b", Reason: manifest.Conflict, Current: first.Revision}, {Path: "a", Reason: manifest.Aborted, Current: first.Revision + 1},
	}
	if err != nil || res.Revision != 0 || !slices.Equal(res.Refused, want) {
		t.Fatalf("%+v, %v; want %+v", res, err, want)
	}
	// What the cluster holds already is named by its digest: a rollback of a.
	old := manifest.Entry{Kind: manifest.File, Size: 1, Digest: manifest.DigestOf([]byte("1"))}
	if res, err = g.propose(server(entryAt("a", old, first.Revision+1))); err != nil || res.Revision != first.Revision+2 {
		t.Fatal(res, err)
	}
	eventually(t, func() error { return errors.Join(g.reads("a", "1"), g.reads("b", "1")) })
}

// What a look at the disk would not let through does not come in here either,
// and whoever asks is told that nothing was committed.
func TestAProposalIsUnderThePolicyOfItsTree(t *testing.T) {
	g := newGateway(t, "gw1")
	g.cfg.Trees[0].Ignore = []string{"*.bak"}
	if _, err := Init(t.Context(), g.cfg); err != nil {
		t.Fatal(err)
	}
	g.run()
	link := func(target string) manifest.Entry { return manifest.Entry{Kind: manifest.Symlink, Target: target} }
	for what, p := range map[string]local.Proposal{
		"is absolute":          server(file("/etc/passwd", "x", 0)),
		"has a .. element":     server(file("a/../../x", "x", 0)),
		".. element":           server(file("../x", "x", 0)),
		"belongs to gatesync":  server(file(".gatesync/marker.json", "x", 0)),
		"is ignored here":      server(file("x.bak", "x", 0)),
		"absolute target":      server(entryAt("l", link("/etc"), 0)),
		"out of the tree":      server(entryAt("l", link("../x"), 0)),
		"unknown kind":         server(local.Change{Change: manifest.Change{Path: "k", New: manifest.Entry{Kind: 9}}}),
		"its content did not":  server(entryAt("f", manifest.Entry{Kind: manifest.File}, 0)),
		"without changes":      server(),
		`no tree "elsewhere"`:  {Tree: "elsewhere", Changes: []local.Change{file("a", "x", 0)}},
		"announced was":        server(local.Change{Change: manifest.Change{Path: "f", New: manifest.Entry{Kind: manifest.File, Size: 1, Digest: manifest.DigestOf([]byte("y"))}}, Content: strings.NewReader("x")}),
		"which is no new file": server(local.Change{Change: manifest.Change{Path: "d", New: manifest.Entry{Kind: manifest.Dir}}, Content: strings.NewReader("x")}),
	} {
		_, err := g.propose(p)
		if !errors.Is(err, cluster.ErrNotCommitted) || !strings.Contains(fmt.Sprint(err), what) {
			t.Errorf("want an error with %q that says that nothing was committed, got: %v", what, err)
		}
	}
	wide := manifest.Entry{Kind: manifest.File, Mode: 0o777}
	if _, err := g.propose(server(local.Change{Change: manifest.Change{Path: "wide", New: wide}, Content: strings.NewReader("x")})); err != nil {
		t.Fatal(err)
	}
	if _, nodes := g.read(); len(nodes) != 1 || nodes["wide"].Entry.Mode != 0o775 {
		t.Errorf("the tree holds %v", nodes)
	}
}

// The content of a large file goes through in pieces.
func TestALargeFileIsProposedInPieces(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "gw1")
	if _, err := Init(t.Context(), g.cfg); err != nil {
		t.Fatal(err)
	}
	g.run()
	const size = 9<<20 + 17
	content := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), size) }
	h := manifest.NewHasher()
	_, _ = io.Copy(h, content())
	res, err := g.propose(allOrNothing(
		local.Change{Change: manifest.Change{Path: "large", New: manifest.Entry{Kind: manifest.File}}, Content: content()}, file("small", "x", 0)))
	if err != nil || res.Revision == 0 {
		t.Fatal(res, err)
	}
	if _, nodes := g.read("large"); nodes["large"].Entry.Size != size || nodes["large"].Entry.Digest != h.Digest() {
		t.Errorf("committed as %v", nodes["large"].Entry)
	}
	// Half a proposal is none: the caller dies before its end.
	failing := local.Change{Change: manifest.Change{Path: "half", New: manifest.Entry{Kind: manifest.File}},
		Content: io.MultiReader(content(), brokenReader{})}
	if _, err := g.propose(server(file("other", "x", 0), failing)); !errors.Is(err, cluster.ErrNotCommitted) || !errors.Is(err, errBroken) {
		t.Errorf("a proposal that broke off: %v", err)
	}
	if _, nodes := g.read("other", "half"); len(nodes) > 0 {
		t.Errorf("half a proposal was committed: %v", nodes)
	}
}

var errBroken = errors.New("broken")

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

// Without a majority a proposal ends in time, and says that nothing was
// committed where it never came into a log.
func TestAProposalWithoutAQuorumIsSurelyNotCommitted(t *testing.T) {
	t.Parallel()
	g := trio(t)
	g[0].stop()
	g[1].stop()
	eventually(t, func() error {
		s, err := g[2].status()
		switch {
		case err != nil:
		case s.Leader != "":
			err = errors.New("it still knows a leader")
		case s.VotersAlive > 1: // who stopped may just have handed it the leadership
			err = errors.New("it still takes the others for alive")
		}
		return err
	})
	for what, p := range map[string]local.Proposal{
		"with content": server(file("a", "x", 0)), "without": server(entryAt("d", manifest.Entry{Kind: manifest.Dir}, 0)),
	} {
		p.Timeout = time.Second
		_, err := g[2].propose(p)
		if !errors.Is(err, cluster.ErrNotCommitted) || !errors.Is(err, cluster.ErrNoQuorum) || status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
	err := g[2].local(func(ctx context.Context, c pb.LocalClient) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := local.Read(ctx, c, &pb.ReadTreeRequest{Tree: "server", Linearizable: true}, nil)
		if err == nil {
			t.Error("a linearizable read without a majority")
		}
		_, err = local.Read(t.Context(), c, &pb.ReadTreeRequest{Tree: "server"}, nil)
		return err
	})
	if err != nil {
		t.Errorf("a read of what this node knows: %v", err)
	}
}
