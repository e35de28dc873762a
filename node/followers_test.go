package node

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// follower joins as one and runs.
func (g *gateway) follow(via *gateway) *gateway {
	g.t.Helper()
	var made Made
	token, at := via.token(time.Minute, 1), via.address()
	eventually(g.t, func() (err error) { // members admit a few a second
		made, err = Join(g.t.Context(), g.cfg, JoinOptions{Via: at, Token: token, Version: "test", Follower: true})
		return err
	})
	if !made.Follower {
		g.t.Fatal("joined, and not as a follower")
	}
	return g.run()
}

// waitFormat waits until the log knows of followers.
func waitFormat(t *testing.T, g *gateway) {
	t.Helper()
	eventually(t, func() error {
		s, err := g.status()
		if err == nil && s.Format.Active < raftstore.FollowersFormat {
			err = fmt.Errorf("format %d", s.Format.Active)
		}
		return err
	})
}

func alone(t *testing.T, name string) *gateway {
	t.Helper()
	g := newGateway(t, name)
	if _, err := Init(t.Context(), g.cfg); err != nil {
		t.Fatal(err)
	}
	g.run()
	waitFormat(t, g)
	return g
}

func (g *gateway) member(name string) (m MemberStatus, err error) {
	s, err := g.status()
	for _, m := range s.Members {
		if m.Name == name {
			return m, err
		}
	}
	return m, fmt.Errorf("%s does not know %s: %w", g.cfg.Name, name, err)
}

// waitsFor has a node's wait end with so many members that have applied everything.
// One that a busy machine holds up for seconds is dead to it, for that long.
func (g *gateway) waitsFor(members int) {
	g.t.Helper()
	eventually(g.t, func() error {
		return g.local(func(ctx context.Context, c pb.LocalClient) error {
			res, err := c.Wait(ctx, &pb.WaitRequest{TimeoutNs: int64(patience / 2)})
			if err == nil && (len(res.GetApplied()) != members || len(res.GetLate())+len(res.GetDead()) > 0) {
				err = fmt.Errorf("wait on %s: %v", g.cfg.Name, res)
			}
			return err
		})
	})
}

func TestFollowersReadAndWrite(t *testing.T) {
	t.Parallel()
	top := alone(t, "gw1")
	top.write("api/a.xml", "a")
	var all []*gateway
	for i := range 2 {
		all = append(all, newGateway(t, fmt.Sprintf("f%d", i)).follow(top))
	}
	everywhere(t, "api/a.xml", "a", all...)
	all[0].write("api/b.xml", "from below")
	everywhere(t, "api/b.xml", "from below", append(all, top)...)
	for _, g := range append(all, top) {
		eventually(t, func() error {
			for _, name := range []string{"gw1", "f0", "f1"} {
				m, err := g.member(name)
				if err != nil {
					return err
				}
				if !m.Alive || m.Applied < 2 || (m.Role == "follower") != strings.HasPrefix(name, "f") {
					return fmt.Errorf("%s sees %+v", g.cfg.Name, m)
				}
			}
			return nil
		})
		g.waitsFor(3)
	}
	eventually(t, func() error { // who is fed looks for another parent now and then
		s, err := top.status()
		if err == nil && (s.Voters != 1 || s.Feeds < 1) {
			err = fmt.Errorf("%d voters, feeds %d", s.Voters, s.Feeds)
		}
		return err
	})
	// One that dies is seen to be dead, and comes back to where it was.
	all[1].stop()
	top.write("api/c.xml", "meanwhile")
	eventually(t, func() error {
		if m, err := top.member("f1"); err != nil || m.Alive {
			return fmt.Errorf("%v: %+v", err, m)
		}
		return nil
	})
	all[1].run()
	everywhere(t, "api/c.xml", "meanwhile", all...)
	if err := os.Remove(all[1].cfg.Trees[0].Path + "/api/a.xml"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if _, err := os.Stat(top.cfg.Trees[0].Path + "/api/a.xml"); err == nil {
			return fmt.Errorf("still there")
		}
		return nil
	})
}

func TestFollowersArePromotedAndDemoted(t *testing.T) {
	t.Parallel()
	top := alone(t, "gw1")
	f := newGateway(t, "f1").follow(top)
	is := func(want string) {
		t.Helper()
		for _, g := range []*gateway{top, f} {
			eventually(t, func() error {
				m, err := g.member("f1")
				if err == nil && (m.Role != want || !m.Alive) {
					err = fmt.Errorf("%s sees %+v", g.cfg.Name, m)
				}
				return err
			})
		}
	}
	is("follower")
	if err := top.role("f1", "voter", false); err != nil {
		t.Fatal(err)
	}
	is("nonvoter")
	top.write("a", "1")
	everywhere(t, "a", "1", f)
	if err := f.role("f1", "follower", false); err != nil {
		t.Fatal(err)
	}
	is("follower")
	f.stop() // it knows by which way the log comes, also after a start
	f.run()
	top.write("a", "2")
	everywhere(t, "a", "2", f)
	eventually(t, func() error {
		s, err := f.status()
		if err == nil && (s.Upstream == "" || len(s.Path) != 1 || s.Node.Role != "follower") {
			err = fmt.Errorf("%q %v %q", s.Upstream, s.Path, s.Node.Role)
		}
		return err
	})
}
