package raftstore

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func target(name, address string) *pb.Command {
	return putting(cluster.Target{Name: name, Address: address, Delete: "held"})
}

func putting(t cluster.Target) *pb.Command {
	return &pb.Command{Format: Format, Do: &pb.Command_PutTarget{PutTarget: FromTarget(t)}}
}

func untarget(name string) *pb.Command {
	return &pb.Command{Format: Format, Do: &pb.Command_RemoveTarget{RemoveTarget: &pb.RemoveTarget{Name: name}}}
}

func assign(name, node string, epoch uint64) *pb.Command {
	return &pb.Command{Format: Format, Do: &pb.Command_AssignTarget{AssignTarget: &pb.AssignTarget{Name: name, Node: node, Epoch: epoch}}}
}

func wantTargets(t testing.TB, m *Machine, want string) {
	t.Helper()
	var got strings.Builder
	for _, x := range m.Targets() {
		fmt.Fprintf(&got, "%s %s pusher %q epoch %d; ", x.Name, x.Address, x.Pusher, x.Epoch)
	}
	if got.String() != want {
		t.Errorf("targets: %s\nwant:    %s", got.String(), want)
	}
}

// A target is added, pushed to by one member at a time, changed, and removed;
// epochs go up over all targets, so that none comes twice, whatever is removed
// and added again.
func TestTargetsAndTheirPushers(t *testing.T) {
	m := mounted(t)
	mustDo(t, m, target("gw9", "gw9:7950"))
	mustDo(t, m, target("gw8", "ssh://gw8/conf"))
	wantTargets(t, m, `gw8 ssh://gw8/conf pusher "" epoch 0; gw9 gw9:7950 pusher "" epoch 0; `)
	mustDo(t, m, assign("gw9", "n-1", 0))
	wantCode(t, m.Apply(assign("gw9", "n-2", 0)), CodeTarget) // late
	mustDo(t, m, assign("gw8", "n-1", 0))
	mustDo(t, m, assign("gw9", "n-2", 1))
	wantTargets(t, m, `gw8 ssh://gw8/conf pusher "n-1" epoch 2; gw9 gw9:7950 pusher "n-2" epoch 3; `)

	full := cluster.Target{
		Name: "gw9", Address: "gw9:7951", Trees: []string{"server"}, Delete: "yes", Limit: 1 << 20, Token: "gs1-x",
		Preset: "wso2", Ignore: []string{"*.log"}, RemoteBinary: "./gatesync", RemoteDataDir: "/var/x", RemoteReserve: "1MB",
	}
	mustDo(t, m, putting(full))
	full.Pusher, full.Epoch = "n-2", 3 // who goes on
	m = restored(t, snapshotOf(t, m))
	if got := m.Targets()[1]; fmt.Sprint(got) != fmt.Sprint(full) {
		t.Errorf("%+v\nwant %+v", got, full)
	}

	// A removed member pushes no more; a removed target is forgotten, its epochs are not.
	mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: "n-2"}}})
	wantTargets(t, m, `gw8 ssh://gw8/conf pusher "n-1" epoch 2; gw9 gw9:7951 pusher "" epoch 3; `)
	mustDo(t, m, untarget("gw9"))
	wantCode(t, m.Apply(untarget("gw9")), CodeTarget)
	wantCode(t, m.Apply(assign("gw9", "n-1", 3)), CodeTarget)
	mustDo(t, m, target("gw9", "gw9:7950"))
	mustDo(t, m, assign("gw9", "n-3", 0))
	wantTargets(t, m, `gw8 ssh://gw8/conf pusher "n-1" epoch 2; gw9 gw9:7950 pusher "n-3" epoch 4; `)
}

func TestTargetsThatAreNone(t *testing.T) {
	wantCode(t, founded().Apply(target("gw9", "gw9:7950")), CodeFormat)
	m := mounted(t)
	mustDo(t, m, target("gw9", "gw9:7950"))
	for why, c := range map[string]*pb.Command{
		"no name":            target("", "a:1"),
		"a name with a path": target("a/b", "a:1"),
		"no address":         target("a", ""),
		"a bell":             target("a", "a:1\a"),
		"a long address":     target("a", strings.Repeat("a", maxSetting+1)),
		"a policy":           putting(cluster.Target{Name: "a", Address: "a:1", Delete: "all"}),
		"a negative limit":   putting(cluster.Target{Name: "a", Address: "a:1", Delete: "no", Limit: -1}),
		"a tree":             putting(cluster.Target{Name: "a", Address: "a:1", Delete: "no", Trees: []string{""}}),
		"a glob":             putting(cluster.Target{Name: "a", Address: "a:1", Delete: "no", Ignore: []string{"\x00"}}),
	} {
		if out := m.Apply(c); out.GetCode() != uint32(CodeMalformed) {
			t.Errorf("%s: %v", why, out)
		}
	}
	wantCode(t, m.Apply(target("twice", "gw9:7950")), CodeTarget) // two pushers for one receiver
	wantCode(t, m.Apply(assign("gw9", "n-9", 0)), CodeNotMember)
	for i := 1; i < maxTargets; i++ {
		mustDo(t, m, target(fmt.Sprint("t", i), fmt.Sprint("t:", i)))
	}
	wantCode(t, m.Apply(target("more", "more:1")), CodeTooLarge)
	mustDo(t, m, putting(cluster.Target{Name: "gw9", Address: "gw9:1", Delete: "no"})) // that is there
}

// A recovered cluster keeps its targets. One that was made of a backup has none: the
// one that the backup is of may still push to them.
func TestTargetsInTheNextLife(t *testing.T) {
	m := mounted(t)
	mustDo(t, m, target("gw9", "gw9:7950"))
	mustDo(t, m, assign("gw9", "n-2", 0))
	if err := m.Begin(&pb.BeginIncarnation{Incarnation: uint64(m.Incarnation()) + 1<<31}, "n-2", 1); err != nil {
		t.Fatal(err)
	}
	wantTargets(t, m, `gw9 gw9:7950 pusher "n-2" epoch 1; `)
	founder := knowing("n-7", Newest).GetPutMember().GetMember()
	if err := m.Begin(&pb.BeginIncarnation{Incarnation: uint64(m.Incarnation()) + 1<<32, Founder: founder}, "n-7", 1); err != nil {
		t.Fatal(err)
	}
	wantTargets(t, m, "")
	mustDo(t, m, target("gw9", "gw9:7950"))
	mustDo(t, m, assign("gw9", "n-7", 0))
	wantTargets(t, m, `gw9 gw9:7950 pusher "n-7" epoch 2; `)
}

// Whatever is said in whatever order: no epoch comes twice and none falls, a
// pusher is a member, an address is one target's, and a snapshot holds it all.
func TestPropertyTargetsStayInOrder(t *testing.T) {
	names := []string{"a", "b", "c"}
	nodes := []string{"n-1", "n-2", "n-3", "n-4"}
	rapid.Check(t, func(r *rapid.T) {
		m := mounted(t)
		pusherOf := map[uint64]string{} // by epoch
		newest := uint64(0)
		for range rapid.IntRange(1, 30).Draw(r, "steps") {
			name := rapid.SampledFrom(names).Draw(r, "name")
			node := rapid.SampledFrom(nodes).Draw(r, "node")
			switch rapid.IntRange(0, 6).Draw(r, "kind") {
			case 0, 1:
				m.Apply(target(name, rapid.SampledFrom(names).Draw(r, "address")))
			case 2:
				m.Apply(untarget(name))
			case 3:
				m.Apply(&pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: node}}})
			default:
				epoch := rapid.Uint64Range(0, newest).Draw(r, "epoch")
				for _, x := range m.Targets() {
					if x.Name == name && rapid.Bool().Draw(r, "the right one") {
						epoch = x.Epoch
					}
				}
				m.Apply(assign(name, node, epoch))
			}
			addresses := map[string]bool{}
			for _, x := range m.Targets() {
				if addresses[x.Address] {
					r.Fatalf("%s is two targets", x.Address)
				}
				addresses[x.Address] = true
				if x.Pusher == "" {
					continue
				}
				who := x.Name + " by " + string(x.Pusher)
				if was, ok := pusherOf[x.Epoch]; ok && was != who || !ok && x.Epoch <= newest {
					r.Fatalf("epoch %d is %s, it was %s; the newest is %d", x.Epoch, who, was, newest)
				}
				pusherOf[x.Epoch], newest = who, max(newest, x.Epoch)
				if _, ok := m.Member(x.Pusher); !ok {
					r.Fatalf("%s is pushed to by %s, who is no member", x.Name, x.Pusher)
				}
			}
			frozen := snapshotOf(t, m)
			if m = restored(t, frozen); !bytes.Equal(frozen, snapshotOf(t, m)) {
				r.Fatal("restore(freeze(m)) is not m")
			}
		}
	})
}

// Of a snapshot nothing is believed.
func TestSnapshotsWithBadTargets(t *testing.T) {
	good := func() *pb.SnapshotTarget {
		return &pb.SnapshotTarget{Target: target("gw9", "gw9:7950").GetPutTarget(), Pusher: "n-1", Epoch: 1}
	}
	for why, spoil := range map[string]func(*pb.SnapshotTarget){
		"a pusher that is no member":   func(s *pb.SnapshotTarget) { s.Pusher = "n-9" },
		"an epoch that has not begun":  func(s *pb.SnapshotTarget) { s.Epoch = 2 },
		"nothing":                      func(s *pb.SnapshotTarget) { s.Target = nil },
		"a name that is there already": func(s *pb.SnapshotTarget) { s.Target.Name, s.Target.Address = "gw8", "gw7:1" },
	} {
		m := mounted(t)
		mustDo(t, m, target("gw8", "gw8:7950"))
		r := &restoring{state: m.state}
		r.targets = m.targets.clone()
		r.targets.epochs = 1
		if err := r.addTarget(good()); err != nil {
			t.Fatal(err)
		}
		delete(r.targets.byName, "gw9")
		s := good()
		spoil(s)
		if r.addTarget(s) == nil {
			t.Errorf("%s was taken", why)
		}
	}
}

func TestNextPusher(t *testing.T) {
	alive := func(id string, load int) Pusher { return Pusher{ID: cluster.NodeID(id), Alive: true, Load: load} }
	with := func(p Pusher, change func(*Pusher)) Pusher { change(&p); return p }
	dead := func(p *Pusher) { p.Alive, p.Dead = false, true }
	silent := func(p *Pusher) { p.Alive = false }
	failing := func(p *Pusher) { p.Failing = true }
	tried := func(p *Pusher) { p.Tried = true }
	for _, c := range []struct {
		what    string
		present string
		members []Pusher
		want    string
	}{
		{"nobody yet: who has the fewest", "", []Pusher{alive("a", 2), alive("b", 1), alive("c", 1)}, "b"},
		{"it goes on", "a", []Pusher{alive("a", 9), alive("b", 0)}, ""},
		{"silent for a moment: it goes on", "a", []Pusher{with(alive("a", 1), silent), alive("b", 0)}, ""},
		{"dead", "a", []Pusher{with(alive("a", 1), dead), alive("b", 3), alive("c", 2)}, "c"},
		{"no member any more", "x", []Pusher{alive("a", 1), alive("b", 0)}, "b"},
		{"dead, and nobody else", "a", []Pusher{with(alive("a", 1), dead), with(alive("b", 0), silent)}, ""},
		{"it cannot reach it, others may", "a", []Pusher{with(alive("a", 1), failing), with(alive("b", 0), tried), alive("c", 5)}, "c"},
		{"nobody can reach it: no circles", "a", []Pusher{with(alive("a", 1), failing), with(alive("b", 0), tried), with(alive("c", 0), tried)}, ""},
		{"dead, and the others failed a while ago", "a", []Pusher{with(alive("a", 1), dead), with(alive("b", 2), tried), with(alive("c", 1), tried)}, "c"},
		{"dead: rather one that did not fail", "a", []Pusher{with(alive("a", 1), dead), with(alive("b", 0), tried), alive("c", 9)}, "c"},
	} {
		got, ok := NextPusher(cluster.Target{Name: "t", Pusher: cluster.NodeID(c.present)}, c.members)
		if string(got) != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}
