package node

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// seats reads members from words: V a voter, n a non-voter, lower case x after
// it: dead, l: it lacks content. The letter before is its name.
func seats(words string) (out []raftstore.Standing) {
	for _, w := range strings.Fields(words) {
		m := raftstore.Standing{
			Member: cluster.Member{ID: cluster.NodeID(w[:1]), Name: w[:1], Role: cluster.NonVoter},
			Alive:  !strings.Contains(w, "x"), Ready: !strings.ContainsAny(w[2:], "xl"),
		}
		if w[1] == 'V' {
			m.Role = cluster.Voter
		}
		out = append(out, m)
	}
	return out
}

func TestWhoMayLeaveVoteAndLead(t *testing.T) {
	leave := func(force bool) func([]raftstore.Standing, cluster.NodeID) error {
		return func(all []raftstore.Standing, id cluster.NodeID) error { return mayLeave(all, id, force) }
	}
	vote := func(all []raftstore.Standing, id cluster.NodeID) error { return mayVote(all, id, false) }
	lead := func(all []raftstore.Standing, id cluster.NodeID) error { return mayLead(all, id, "a") }
	for _, c := range []struct {
		what    string
		may     func([]raftstore.Standing, cluster.NodeID) error
		members string
		id      cluster.NodeID
		says    string // "" for: may
	}{
		{"leave", leave(false), "aV bV cV", "c", ""},
		{"leave", leave(false), "aV bV cVx", "c", ""},
		{"leave", leave(false), "aV bVx cV", "c", "only 1 of 2 voters are alive"},
		{"leave", leave(true), "aV bVx cV", "c", ""},
		{"leave", leave(false), "aV bVl cV", "c", "only 1 of 2 voters hold all content"},
		{"leave", leave(false), "aV bVl cVx", "c", ""}, // it serves nobody
		{"leave", leave(true), "aV bVl cV", "c", ""},
		{"leave", leave(false), "aV bV cV", "d", "not a member"},
		{"leave", leave(false), "aV bn", "b", ""},
		{"leave", leave(true), "aV bn", "a", "the only voter"},
		{"leave", leave(false), "aV bV", "b", ""},
		{"vote", vote, "aV bn", "b", ""},
		{"vote", vote, "aV bV", "b", ""},
		{"vote", vote, "aV bnx", "b", "does not answer"},
		{"vote", vote, "aV bnl", "b", "has not caught up"},
		{"vote", vote, "aV", "b", "not a member"},
		{"vote", vote, "aV bV cV dV eV fV gV hn", "h", "as many as Raft should have"},
		{"lead", lead, "aV bV", "b", ""},
		{"lead", lead, "aV bV", "", ""},
		{"lead", lead, "aV bVx", "", "no other voter is alive"},
		{"lead", lead, "aV bVx", "b", "does not answer"},
		{"lead", lead, "aV bn", "b", "does not vote"},
		{"lead", lead, "aV", "b", "not a member"},
	} {
		err := c.may(seats(c.members), c.id)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %s of %s: %v, want %q", c.what, c.id, c.members, err, c.says)
		}
		want := codes.FailedPrecondition
		if c.says == "not a member" {
			want = codes.NotFound
		}
		if err != nil && status.Code(err) != want {
			t.Errorf("%s %s of %s: code %s", c.what, c.id, c.members, status.Code(err))
		}
	}
}

// steered is the log as a leader's steering sees it.
type steered struct {
	raftGroup
	leader   cluster.NodeID
	revision manifest.Revision
	members  []cluster.Member
	servers  []cluster.Member
	unread   []cluster.Member // members of which the machine knows only after a barrier
	did      []string
}

func (s *steered) Servers() ([]cluster.Member, error) { return s.servers, nil }

func (s *steered) Barrier(context.Context) error {
	s.members, s.unread = append(s.members, s.unread...), nil
	return nil
}

func (s *steered) Remove(_ context.Context, id cluster.NodeID) error {
	s.did = append(s.did, "remove "+string(id))
	return nil
}

func (s *steered) AddNonVoter(_ context.Context, id cluster.NodeID) error {
	s.did = append(s.did, "add "+string(id))
	return nil
}

// A new leader has not applied the end of its log yet: who joined last is in
// Raft's configuration and not among the members, and must not be taken for
// somebody who was removed.
func TestPromise_Available_NewLeaderRemovesNobodyItHasNotReadOf(t *testing.T) {
	a, b := cluster.Member{ID: "a", Role: cluster.Voter}, cluster.Member{ID: "b", Role: cluster.Voter}
	group := &steered{leader: "a", members: []cluster.Member{a}, unread: []cluster.Member{b}, servers: []cluster.Member{a, b}}
	p := &peers{self: "a", now: time.Now, started: time.Now(), strangers: func() bool { return false }, heard: map[cluster.NodeID]*heard{}}
	s := &steering{self: "a", group: group, peers: p, now: time.Now, log: quiet()}
	s.leads()
	for range 2 {
		if err := s.step(t.Context()); err != nil || len(group.did) > 0 {
			t.Fatalf("%v %v", group.did, err)
		}
	}
	group.servers = append(group.servers, cluster.Member{ID: "c", Role: cluster.Voter})
	if err := s.step(t.Context()); err != nil || strings.Join(group.did, ", ") != "remove c" {
		t.Fatalf("%v %v, want c removed", group.did, err)
	}
	group.servers = []cluster.Member{a}
	if err := s.step(t.Context()); err != nil || strings.Join(group.did, ", ") != "remove c, add b" {
		t.Fatalf("%v %v, want b added", group.did, err)
	}
}

func (s *steered) Leader() (cluster.NodeID, bool) { return s.leader, s.leader != "" }
func (s *steered) Revision() manifest.Revision    { return s.revision }
func (s *steered) Members() []cluster.Member      { return s.members }

// A leader judges others by what it has seen as the leader: silence from before
// its time is none, and being "nearly" there is not enough for who was never
// complete.
func TestStandings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := &steered{leader: "a", revision: 40, members: []cluster.Member{{ID: "a"}, {ID: "b"}, {ID: "c"}}}
		p := &peers{self: "a", now: time.Now, started: time.Now(), strangers: func() bool { return false }, heard: map[cluster.NodeID]*heard{}}
		p.book = openBook(t.TempDir()+"/peers.json", quiet())
		lacks := uint64(0)
		s := &steering{self: "a", group: group, peers: p, now: time.Now, log: quiet(), lacks: func() uint64 { return lacks }}
		says := func(content uint64) {
			_ = p.hear("b", &pb.NodeState{Id: "b", Raft: true, Revision: uint64(group.revision), Content: content}, nil)
		}
		b := func() raftstore.Standing { return s.standings(time.Time{})[1] }

		time.Sleep(time.Hour)
		if !s.leads() {
			t.Fatal("it leads")
		}
		time.Sleep(time.Minute)
		if got := s.standings(time.Time{})[2].Dead; got != time.Minute {
			t.Errorf("never heard of, and dead for %s, want since it leads", got)
		}
		says(1) // it was complete at revision 1, of 40, each of which may be large
		if b().Ready || !b().Alive || b().Dead != 0 {
			t.Errorf("%+v", b())
		}
		says(40)
		if !b().Ready {
			t.Errorf("%+v", b())
		}
		group.revision = 41 // under load
		says(40)
		if !b().Ready {
			t.Errorf("%+v", b())
		}
		group.revision = 140
		says(40)
		if b().Ready {
			t.Errorf("a hundred revisions behind: %+v", b())
		}
		group.leader = "c"
		if s.leads() {
			t.Error("it leads no more")
		}
		group.leader = "a"
		says(135) // of 140: near, but another leader would not know whether it was ever complete
		if !s.leads() || b().Ready {
			t.Errorf("%+v", b())
		}
		says(140)
		if !b().Ready {
			t.Errorf("%+v", b())
		}
		if got := s.standings(time.Now().Add(time.Millisecond))[1]; got.Alive || got.Ready {
			t.Errorf("heard before that moment, and alive: %+v", got)
		}
		says(140)
		// Content that nobody has any more, the leader neither.
		lost := func(missing, looked uint64) bool {
			_ = p.hear("b", &pb.NodeState{Id: "b", Raft: true, Revision: 140, Missing: missing, Looked: looked}, nil)
			return b().Ready
		}
		if lost(2, 140) {
			t.Error("it lacks what the leader has")
		}
		lacks = 2
		if !lost(2, 140) || lost(3, 140) || lost(2, 60) || lost(0, 140) {
			t.Error("of a member that lacks content only what the leader lacks too is forgiven")
		}
		says(140)
		time.Sleep(time.Hour)
		if got := b().Dead; got != time.Hour || b().Alive {
			t.Errorf("dead for %s", got)
		}
	})
}

// A member that was silent and is heard again is news, once.
func TestSilentMemberIsHeardAgain(t *testing.T) {
	now, back := time.Unix(1000, 0), 0
	p := &peers{
		self: "a", now: func() time.Time { return now }, back: func() { back++ },
		strangers: func() bool { return false }, heard: map[cluster.NodeID]*heard{},
	}
	for i, pause := range []time.Duration{0, time.Second, aliveFor, aliveFor + time.Second, time.Second} {
		now = now.Add(pause)
		if err := p.hear("b", &pb.NodeState{Id: "b"}, nil); err != nil {
			t.Fatal(err)
		}
		if want := []int{1, 1, 1, 2, 2}[i]; back != want {
			t.Errorf("after %s of silence: back %d times, want %d", pause, back, want)
		}
	}
}
