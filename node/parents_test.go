package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// A transcript: what a follower asks, and what comes of it. The dice always
// fall on the first.
func TestChoosingAParent(t *testing.T) {
	endings := map[string]ending{
		"unreachable": endUnreachable, "lost": endLost, "full": endFull, "loop": endLoop, "no-upstream": endNoUpstream,
		"behind": endBehind, "stalled": endStalled, "better": endBetter, "diverged": endDiverged,
	}
	for name, script := range map[string]string{
		"a member of Raft first": `
			members r1 r2 f1 f2 me
			asks r1
			r1 unreachable
			asks r2
			r2 unreachable
			asks f1`,
		"down the tree": `
			members r1 f1 f2 f3
			asks r1
			r1 full f1 f2
			asks f1
			f1 full f3
			asks f3
			f3 unreachable
			asks f2`,
		"a full one is asked again when the tree may have changed": `
			members r1 f1
			r1 full f1
			f1 lost
			asks nobody
			after 600ms
			asks f1
			f1 lost
			after 10s
			asks f1
			f1 unreachable
			asks r1`,
		"who is dead is asked ever more rarely": `
			members r1
			r1 unreachable
			after 1s
			asks r1
			r1 unreachable
			after 1s
			asks nobody
			after 1s
			asks r1
			r1 unreachable
			after 3s
			asks nobody
			after 1s
			asks r1
			r1 lost
			after 500ms
			asks r1
			r1 unreachable
			after 1s
			asks r1`,
		"never itself, nor who is no member": `
			members r1 f1 me
			r1 full me gone f1
			asks f1
			f1 loop
			asks nobody
			after 3s
			asks f1`,
		"one that stalls is left alone": `
			members r1 r2
			asks r1
			r1 stalled
			asks r2
			r2 stalled
			asks nobody
			after 10s
			asks r1`,
		"one that hears of a leader goes first": `
			members r1 r2 f1
			asks r1
			r1 better r2
			asks r2`,
		"another history": `
			members r1
			r1 diverged
			after 30s
			asks nobody
			after 30s
			asks r1`,
	} {
		t.Run(name, func(t *testing.T) {
			p := parents{self: "me"}
			now := time.Unix(1000, 0)
			var members []cluster.Member
			first := func(int) int { return 0 }
			for i, line := range strings.Split(strings.TrimSpace(script), "\n") {
				w := strings.Fields(line)
				switch w[0] {
				case "members":
					members = nil
					for _, id := range w[1:] {
						m := cluster.Member{ID: cluster.NodeID(id), Role: cluster.Voter}
						if id[0] == 'f' {
							m.Role = cluster.Follower
						}
						members = append(members, m)
					}
				case "asks":
					id, pause := p.next(now, members, first)
					if id == "" {
						id = "nobody"
						if pause <= 0 {
							t.Errorf("line %d: asks nobody, and again at once", i)
						}
					}
					if string(id) != w[1] {
						t.Fatalf("line %d: asks %s, want %s", i, id, w[1])
					}
				case "after":
					d, err := time.ParseDuration(w[1])
					if err != nil {
						t.Fatal(err)
					}
					now = now.Add(d)
				default:
					how, ok := endings[w[1]]
					if !ok {
						t.Fatalf("line %d: %q", i, line)
					}
					var instead []cluster.NodeID
					for _, id := range w[2:] {
						instead = append(instead, cluster.NodeID(id))
					}
					p.ended(now, cluster.NodeID(w[0]), how, instead, first)
				}
			}
		})
	}
}

// A thousand followers that come one after the other, or all lose their parents
// at once, end in a low tree in which nobody feeds more than it should.
func TestTheTreeOfAThousandIsLowAndSurvives(t *testing.T) {
	w := newForestModel(5, 1000)
	if rounds := w.settle(t); rounds > 60 {
		t.Errorf("settled after %d rounds", rounds)
	}
	depth, most := w.measure(t)
	t.Logf("1000 followers of 5 members: depth %d, at most %d children", depth, most)
	if depth > 8 || most > feedChildren {
		t.Errorf("depth %d, %d children", depth, most)
	}
	for _, link := range []float64{12.5e6, 125e6} { // bytes a second: 100 Mbit/s, 1 Gbit/s
		const size = 10e6
		last, busiest := w.spread(size, link)
		t.Logf("10 MB over links of %.0f Mbit/s: on all after %s, %.0f MB out of the busiest node", link*8/1e6, last.Round(time.Millisecond), busiest/1e6)
	}
	said := &pb.NodeState{
		Id: "n-0123456789abcdef", Version: "v1.2.3", Format: 2, Store: cluster.NewStoreID(), Revision: 1e6, Applied: 1e6, Content: 1e6, AgeMs: 1000,
		Trusts: []string{strings.Repeat("a", 64)}, Issuer: strings.Repeat("a", 64),
	}
	t.Logf("what is told of 1000 followers: %d KB a hello, a second and neighbour", 1000*gproto.Size(said)/1000)
	// A fifth of the inner ones die, and two of the members.
	died := 0
	for id, kids := range w.children {
		if len(kids) > 0 && (id[0] == 'f' && w.dice(5) == 0 || id == "r0" || id == "r1") {
			w.die(id)
			died++
		}
	}
	rounds := w.settle(t)
	depth, most = w.measure(t)
	t.Logf("%d of them died: %d rounds later depth %d, at most %d children", died, rounds, depth, most)
	if died < 10 || rounds > 120 || most > feedChildren {
		t.Errorf("%d died, %d rounds, %d children", died, rounds, most)
	}
}

// forestModel is followers, with the real choice of parents and the real rules
// of admission, on a clock that ticks in rounds.
type forestModel struct {
	now      time.Time
	members  []cluster.Member
	dead     map[cluster.NodeID]bool
	search   map[cluster.NodeID]*parents
	parent   map[cluster.NodeID]cluster.NodeID
	children map[cluster.NodeID]map[cluster.NodeID]bool
	seed     uint64
}

func (w *forestModel) dice(n int) int {
	w.seed = w.seed*6364136223846793005 + 1442695040888963407
	return int((w.seed >> 33) % uint64(n))
}

func newForestModel(members, followers int) *forestModel {
	w := &forestModel{
		now: time.Unix(1000, 0), dead: map[cluster.NodeID]bool{}, search: map[cluster.NodeID]*parents{},
		parent: map[cluster.NodeID]cluster.NodeID{}, children: map[cluster.NodeID]map[cluster.NodeID]bool{}, seed: 7,
	}
	add := func(id cluster.NodeID, role cluster.Role) {
		w.members = append(w.members, cluster.Member{ID: id, Role: role})
		w.children[id] = map[cluster.NodeID]bool{}
	}
	for i := range members {
		add(cluster.NodeID(fmt.Sprint("r", i)), cluster.Voter)
	}
	for i := range followers {
		id := cluster.NodeID(fmt.Sprint("f", i))
		add(id, cluster.Follower)
		w.search[id] = &parents{self: id}
	}
	return w
}

// above lists who stands above a node, itself first; fed tells whether a member
// of Raft is the last.
func (w *forestModel) above(id cluster.NodeID) (path []cluster.NodeID, fed bool) {
	for {
		path = append(path, id)
		if id[0] == 'r' {
			return path, !w.dead[id]
		}
		up, ok := w.parent[id]
		if !ok || w.dead[up] {
			return path, false
		}
		id = up
	}
}

// ask is one attempt.
func (w *forestModel) ask(id cluster.NodeID) {
	p := w.search[id]
	to, _ := p.next(w.now, w.members, w.dice)
	if to == "" {
		return
	}
	end := func(how ending, instead ...cluster.NodeID) { p.ended(w.now, to, how, instead, w.dice) }
	path, fed := w.above(to)
	switch {
	case w.dead[to]:
		end(endUnreachable)
		return
	case !fed:
		end(endNoUpstream)
		return
	case len(w.children[to]) >= feedChildren:
		var kids []cluster.NodeID
		for _, m := range w.members { // in a fixed order
			if w.children[to][m.ID] {
				kids = append(kids, m.ID)
			}
		}
		end(endFull, kids...)
		return
	}
	for _, up := range path {
		if up == id {
			end(endLoop)
			return
		}
	}
	w.parent[id] = to
	w.children[to][id] = true
}

// settle lets everybody who is not fed ask once a round (100 ms), until all are.
func (w *forestModel) settle(t *testing.T) (rounds int) {
	t.Helper()
	for rounds = range 1000 {
		left := 0
		for _, m := range w.members {
			if m.Role != cluster.Follower || w.dead[m.ID] {
				continue
			}
			if up, ok := w.parent[m.ID]; ok && !w.dead[up] {
				continue // its parent, if that is not fed, is looking for one itself
			}
			delete(w.parent, m.ID)
			w.ask(m.ID)
			if _, fed := w.above(m.ID); !fed {
				left++
			}
		}
		if left == 0 {
			return rounds
		}
		w.now = w.now.Add(100 * time.Millisecond)
	}
	t.Fatal("not all are fed")
	return 0
}

func (w *forestModel) die(id cluster.NodeID) {
	w.dead[id] = true
	if up, ok := w.parent[id]; ok {
		delete(w.children[up], id)
	}
	clear(w.children[id])
}

// spread is a model of time: content that stands on the members goes down; each
// child asks when its parent has it (or looks again, 50 ms later), and shares the
// parent's link with its siblings. One message a level tells of it.
func (w *forestModel) spread(size, link float64) (last time.Duration, busiest float64) {
	const message, look = 5 * time.Millisecond, upwardPause
	var arrival func(cluster.NodeID) time.Duration
	arrival = func(id cluster.NodeID) time.Duration {
		if id[0] == 'r' {
			return 0
		}
		up := w.parent[id]
		return arrival(up) + message + look + time.Duration(size*float64(len(w.children[up]))/link*float64(time.Second))
	}
	for _, m := range w.members {
		last, busiest = max(last, arrival(m.ID)), max(busiest, size*float64(len(w.children[m.ID])))
	}
	return last, busiest
}

func (w *forestModel) measure(t *testing.T) (depth, most int) {
	t.Helper()
	for _, m := range w.members {
		path, fed := w.above(m.ID)
		if !fed && !w.dead[m.ID] {
			t.Fatalf("%s is not fed", m.ID)
		}
		depth, most = max(depth, len(path)-1), max(most, len(w.children[m.ID]))
	}
	return depth, most
}
