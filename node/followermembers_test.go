package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// When Raft has as many members as the settings want, who joins is a follower by
// itself; once there is room again the next one is a member. What was a follower
// stays one.
func TestMembersMax(t *testing.T) {
	t.Parallel()
	top := newGateway(t, "gw1")
	top.cfg.Voters, top.cfg.MembersMax = 1, 2
	if _, err := Init(t.Context(), top.cfg); err != nil {
		t.Fatal(err)
	}
	top.run()
	waitFormat(t, top)
	joins := func(name string) (g *gateway, follower bool) {
		t.Helper()
		g = newGateway(t, name)
		var made Made
		token, at := top.token(time.Minute, 1), top.address()
		eventually(t, func() (err error) {
			made, err = Join(t.Context(), g.cfg, JoinOptions{Via: at, Token: token, Version: "test"})
			return err
		})
		return g.run(), made.Follower
	}
	is := func(name, want string) {
		t.Helper()
		eventually(t, func() error {
			m, err := top.member(name)
			if err == nil && (m.Role != want || !m.Alive) {
				err = fmt.Errorf("%s is %q, alive %v; want %q", name, m.Role, m.Alive, want)
			}
			return err
		})
	}
	second, follower := joins("gw2")
	if follower {
		t.Error("the second of two is a follower")
	}
	is("gw2", "nonvoter")
	for _, name := range []string{"gw3", "gw4"} {
		if _, follower := joins(name); !follower {
			t.Errorf("%s is a third member of two", name)
		}
		is(name, "follower")
	}
	second.stop()
	err := top.local(func(ctx context.Context, c pb.LocalClient) error {
		_, err := c.RemoveNode(ctx, &pb.RemoveNodeRequest{Node: "gw2", Force: true})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, follower := joins("gw5"); follower {
		t.Error("there is room for a member again, and gw5 is a follower")
	}
	is("gw5", "nonvoter")
	is("gw3", "follower")
}

// The quorum is lost for good while followers are around, one of them fed by the
// other. Nobody forgets anything; when a survivor has been recovered they come back
// to it by themselves, as followers, and what was written on them meanwhile goes
// aside or on, and is never lost.
func TestPromise_Converge_FollowersOfARecoveredCluster(t *testing.T) {
	t.Parallel()
	g := trio(t)
	for _, n := range g {
		waitFormat(t, n)
	}
	f := newGateway(t, "f1").follow(g[0])
	g[0].write("a.xml", "before\n")
	everywhere(t, "a.xml", "before\n", append(g[:], f)...)
	for _, n := range append(g[:], f) {
		n.cfg.Listen = n.address()
	}
	f.stop()
	f.serve()
	// It has to have read how far the log goes, or it waits for that alone.
	g[0].write("again.xml", "read anew\n")
	everywhere(t, "again.xml", "read anew\n", append(g[:], f)...)
	g[1].stop()
	g[2].stop()
	f.write("waits.xml", "written without a quorum\n")
	eventually(t, func() error {
		s, err := f.status()
		if err == nil && (s.Quorum || len(s.Trees) == 0 || s.Trees[0].Unsent == 0) {
			err = fmt.Errorf("quorum %v, trees %+v", s.Quorum, s.Trees)
		}
		return err
	})
	g[0].stop()
	g[0].recover()
	g[0].serve()
	g[0].write("b.xml", "of the new life\n")
	everywhere(t, "b.xml", "of the new life\n", g[0], f)
	eventually(t, func() error {
		m, err := g[0].member("f1")
		if err == nil && (m.Role != "follower" || !m.Alive) {
			err = fmt.Errorf("it is %q, alive %v", m.Role, m.Alive)
		}
		return err
	})
	// What it had written is where a person finds it.
	eventually(t, func() error {
		err := f.reads("waits.xml", "written without a quorum\n")
		if err == nil {
			return nil
		}
		s, serr := f.status()
		if serr != nil || len(s.Trees) == 0 || s.Trees[0].Conflicts != 1 {
			return fmt.Errorf("%w, and it is not kept aside: %+v, %w", err, s.Trees, serr)
		}
		return nil
	})
	// It may write again, and a voter that returns meets it.
	f.write("c.xml", "of the follower\n")
	everywhere(t, "c.xml", "of the follower\n", g[0], f)
	g[1].serve()
	everywhere(t, "c.xml", "of the follower\n", g[1])
}

// Of a mount that only followers see nobody is the steward: that is said, with the
// remedy, and the remedy works.
func TestMountOfFollowersAlone(t *testing.T) {
	t.Parallel()
	top := alone(t, "gw1")
	f1, f2 := newGateway(t, "f1"), newGateway(t, "f2")
	shared := filepath.Join(t.TempDir(), "mount")
	if err := os.Mkdir(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	f1.cfg.Trees[0].Path, f2.cfg.Trees[0].Path = shared, shared
	f1.follow(top)
	f2.follow(top)
	says := func(want bool) {
		t.Helper()
		for _, g := range []*gateway{f1, f2} {
			eventually(t, func() error {
				s, err := g.status()
				if err != nil || len(s.Trees) == 0 || s.Trees[0].Storage != "direct" {
					return errors.Join(err, fmt.Errorf("%s: %+v", g.cfg.Name, s.Trees))
				}
				text := strings.Join(s.Trees[0].Notices, "\n")
				if said := strings.Contains(text, "gatesync promote") && strings.Contains(text, "only followers"); said != want {
					return fmt.Errorf("%s says %q", g.cfg.Name, text)
				}
				return nil
			})
		}
	}
	says(true)
	if err := top.role("f1", "voter", false); err != nil {
		t.Fatal(err)
	}
	says(false)
	top.write("a.xml", "from elsewhere\n")
	everywhere(t, "a.xml", "from elsewhere\n", f1)
	f2.write("b.xml", "by the follower's gateway\n")
	everywhere(t, "b.xml", "by the follower's gateway\n", top)
}
