package raftstore

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// mounted is a founded machine whose log knows mounts.
func mounted(t testing.TB) *Machine {
	m := founded()
	for _, id := range []string{"n-1", "n-2", "n-3"} {
		mustDo(t, m, knowing(id, Newest))
	}
	mustDo(t, m, raise(uint32(mountsFormat)))
	return m
}

// sees is a sighting: "n-1/a sees n-2/b n-3/c".
func sees(node, nonce string, others ...cluster.Seen) *pb.Command {
	return sightingOf(cluster.Sighting{Node: cluster.NodeID(node), Nonce: nonce, Sees: others, Storage: "auto", Mount: "m-of-" + node})
}

func sightingOf(g cluster.Sighting) *pb.Command {
	return &pb.Command{Format: Format, Do: &pb.Command_PutSighting{PutSighting: FromSighting("server", g)}}
}

func at(node, nonce string) cluster.Seen {
	return cluster.Seen{Node: cluster.NodeID(node), Nonce: nonce}
}

func steward(mount, node string, epoch uint64) *pb.Command {
	return &pb.Command{Format: Format, Do: &pb.Command_PutSteward{PutSteward: &pb.PutSteward{Tree: "server", Mount: mount, Node: node, Epoch: epoch}}}
}

func wantMounts(t *testing.T, m *Machine, want string) {
	t.Helper()
	got := ""
	for _, mt := range m.Shares("server").Mounts {
		got += fmt.Sprintf("%s%v steward %q epoch %d; ", mt.ID, mt.Members, mt.Steward, mt.Epoch)
	}
	if got != want {
		t.Errorf("mounts: %s\nwant:   %s", got, want)
	}
}

// One directory is where two nodes each read the other's present nonce: one
// direction alone is a copy.
func TestMountsAreSeenFromBothSides(t *testing.T) {
	m := mounted(t)
	mustDo(t, m, sees("n-1", "a"))
	wantMounts(t, m, "") // it sees nobody
	mustDo(t, m, sees("n-2", "b", at("n-1", "a")))
	wantMounts(t, m, `m-of-n-2[n-2] steward "" epoch 0; `) // it may be a copy: nobody's but its own yet
	mustDo(t, m, sees("n-1", "a", at("n-2", "old")))
	wantMounts(t, m, `m-of-n-1[n-1] steward "" epoch 0; m-of-n-2[n-2] steward "" epoch 0; `)
	mustDo(t, m, sees("n-1", "a", at("n-2", "b")))
	wantMounts(t, m, `m-of-n-1[n-1 n-2] steward "" epoch 0; `)
	mustDo(t, m, steward("m-of-n-1", "n-2", 0))
	mustDo(t, m, sees("n-3", "c", at("n-1", "a"), at("n-2", "b")))
	mustDo(t, m, sees("n-2", "b", at("n-1", "a"), at("n-3", "c")))
	wantMounts(t, m, `m-of-n-1[n-1 n-2 n-3] steward "n-2" epoch 1; `)

	// A restart is another nonce: out until both sides have seen it; id and epoch stay.
	mustDo(t, m, sees("n-2", "b2", at("n-1", "a"), at("n-3", "c")))
	wantMounts(t, m, `m-of-n-1[n-2] steward "n-2" epoch 1; m-of-n-1.1[n-1] steward "" epoch 1; m-of-n-3[n-3] steward "" epoch 1; `)
	mustDo(t, m, sees("n-1", "a", at("n-2", "b2")))
	mustDo(t, m, sees("n-3", "c", at("n-2", "b2")))
	wantMounts(t, m, `m-of-n-1[n-1 n-2 n-3] steward "n-2" epoch 1; `)
}

// Where one of two restarts, the other one goes on as the steward.
func TestARestartLeavesTheStewardAlone(t *testing.T) {
	m := mounted(t)
	mustDo(t, m, sees("n-1", "a", at("n-2", "b")))
	mustDo(t, m, sees("n-2", "b", at("n-1", "a")))
	mustDo(t, m, steward("m-of-n-1", "n-1", 0))
	mustDo(t, m, sees("n-2", "b2", at("n-1", "a")))
	wantMounts(t, m, `m-of-n-1[n-1] steward "n-1" epoch 1; m-of-n-2[n-2] steward "" epoch 1; `)
	mustDo(t, m, sees("n-1", "a", at("n-2", "b2")))
	wantMounts(t, m, `m-of-n-1[n-1 n-2] steward "n-1" epoch 1; `)
}

// A late word about a steward names an epoch that is over.
func TestStewardsHaveEpochs(t *testing.T) {
	m := mounted(t)
	mustDo(t, m, sees("n-1", "a", at("n-2", "b")))
	mustDo(t, m, sees("n-2", "b", at("n-1", "a")))
	mustDo(t, m, steward("m-of-n-1", "n-1", 0))
	wantCode(t, m.Apply(steward("m-of-n-1", "n-2", 0)), CodeMount)
	wantCode(t, m.Apply(steward("m-of-n-1", "n-3", 1)), CodeMount)
	wantCode(t, m.Apply(steward("m-other", "n-1", 1)), CodeMount)
	mustDo(t, m, steward("m-of-n-1", "n-2", 1))
	wantMounts(t, m, `m-of-n-1[n-1 n-2] steward "n-2" epoch 2; `)
	mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: "n-2"}}})
	wantMounts(t, m, `m-of-n-1[n-1] steward "" epoch 2; `)
	wantCode(t, m.Apply(sees("n-2", "b")), CodeNotMember)
}

func TestSightingsNeedTheirFormat(t *testing.T) {
	m := founded()
	wantCode(t, m.Apply(sees("n-1", "a")), CodeFormat)
	m = mounted(t)
	wantCode(t, m.Apply(sees("n-9", "a")), CodeNotMember)
	wantCode(t, m.Apply(sees("n-1", "a\n")), CodeMalformed)
	wantCode(t, m.Apply(sees("n-1", "a", at("", "b"))), CodeMalformed)
	other := sees("n-1", "a")
	other.GetPutSighting().Tree = "none"
	wantCode(t, m.Apply(other), CodeUnknownTree)
}

// Whatever is said in whatever order: nobody is on two mounts, a steward is on
// his, an epoch never falls, all of one mount are connected, and a snapshot
// holds everything.
func TestMountsStayInOrder(t *testing.T) {
	ids := []string{"n-1", "n-2", "n-3"}
	rapid.Check(t, func(r *rapid.T) {
		m := mounted(t)
		epochs := map[string]uint64{}
		for range rapid.IntRange(1, 25).Draw(r, "steps") {
			node := rapid.SampledFrom(ids).Draw(r, "node")
			if rapid.IntRange(0, 3).Draw(r, "kind") == 0 {
				for _, mt := range m.Shares("server").Mounts {
					m.Apply(steward(mt.ID, node, mt.Epoch))
				}
			} else {
				g := cluster.Sighting{Node: cluster.NodeID(node), Nonce: rapid.SampledFrom([]string{"a", "b", ""}).Draw(r, "nonce"), Storage: rapid.SampledFrom([]string{"auto", "direct"}).Draw(r, "storage"), Mount: "m-of-" + node}
				for _, other := range ids {
					if other != node && rapid.Bool().Draw(r, "sees") {
						g.Sees = append(g.Sees, at(other, rapid.SampledFrom([]string{"a", "b"}).Draw(r, "read")))
					}
				}
				mustDo(t, m, sightingOf(g))
			}
			shares := m.Shares("server")
			on := map[cluster.NodeID]bool{}
			for _, mt := range shares.Mounts {
				if mt.Epoch < epochs[mt.ID] {
					r.Fatalf("the epoch of %s falls from %d to %d", mt.ID, epochs[mt.ID], mt.Epoch)
				}
				epochs[mt.ID] = mt.Epoch
				if mt.Steward != "" && !slices.Contains(mt.Members, mt.Steward) {
					r.Fatalf("%+v: the steward is not on it", mt)
				}
				for _, id := range mt.Members {
					if on[id] {
						r.Fatalf("%s is on two mounts: %+v", id, shares.Mounts)
					}
					on[id] = true
				}
			}
			for _, a := range shares.Sightings {
				for _, b := range shares.Sightings {
					if x, ok := shares.MountOf(a.Node); a.Node != b.Node && cluster.Mutual(a, b) && (!ok || !slices.Contains(x.Members, b.Node)) {
						r.Fatalf("%s and %s see each other and are not on one mount: %+v", a.Node, b.Node, shares)
					}
				}
			}
			var first, second bytes.Buffer
			if _, err := m.Freeze().WriteTo(&first); err != nil {
				r.Fatal(err)
			}
			again := NewMachine()
			if err := again.Restore(bytes.NewReader(first.Bytes())); err != nil {
				r.Fatal(err)
			}
			if _, err := again.Freeze().WriteTo(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
				r.Fatalf("a snapshot of a restored state differs (%v)", err)
			}
		}
	})
}

func TestNextSteward(t *testing.T) {
	g := func(node string, sees ...cluster.Seen) cluster.Sighting {
		return cluster.Sighting{Node: cluster.NodeID(node), Nonce: node, Sees: sees, Storage: "auto"}
	}
	a, b := g("a", at("b", "b")), g("b", at("a", "a"))
	local, misses, joining := b, b, a
	local.Storage = "local"
	misses.Misses = []cluster.Seen{at("a", "a")}
	joining.Joiner = true
	well, dead, silent, unfit := Life{Alive: true}, Life{Dead: true}, Life{}, Life{Alive: true, Unfit: true}
	for _, c := range []struct {
		name      string
		sightings []cluster.Sighting
		members   []cluster.NodeID
		steward   cluster.NodeID
		lives     map[cluster.NodeID]Life
		want      cluster.NodeID // "": nobody else
	}{
		{"the lowest", []cluster.Sighting{a, b}, []cluster.NodeID{"a", "b"}, "", map[cluster.NodeID]Life{"a": well, "b": well}, "a"},
		{"who knows what stands there goes first", []cluster.Sighting{joining, b}, []cluster.NodeID{"a", "b"}, "", map[cluster.NodeID]Life{"a": well, "b": well}, "b"},
		{"the present one stays", []cluster.Sighting{a, b}, []cluster.NodeID{"a", "b"}, "b", map[cluster.NodeID]Life{"a": well, "b": well}, ""},
		{"silent is not dead", []cluster.Sighting{a, b}, []cluster.NodeID{"a", "b"}, "b", map[cluster.NodeID]Life{"a": well, "b": silent}, ""},
		{"dead", []cluster.Sighting{a, b}, []cluster.NodeID{"a", "b"}, "a", map[cluster.NodeID]Life{"a": dead, "b": well}, "b"},
		{"its root hangs", []cluster.Sighting{a, b}, []cluster.NodeID{"a", "b"}, "a", map[cluster.NodeID]Life{"a": unfit, "b": well}, "b"},
		{"nobody is well", []cluster.Sighting{a, b}, []cluster.NodeID{"a", "b"}, "a", map[cluster.NodeID]Life{"a": unfit, "b": unfit}, ""},
		{"local is nobody's steward", []cluster.Sighting{a, local}, []cluster.NodeID{"a", "b"}, "a", map[cluster.NodeID]Life{"a": dead, "b": well}, ""},
		{"alone, the other has not answered", []cluster.Sighting{a}, []cluster.NodeID{"a"}, "", map[cluster.NodeID]Life{"a": well, "b": well}, ""},
		{"alone, the other is silent", []cluster.Sighting{a}, []cluster.NodeID{"a"}, "", map[cluster.NodeID]Life{"a": well, "b": silent}, ""},
		{"alone, the other is dead", []cluster.Sighting{a}, []cluster.NodeID{"a"}, "", map[cluster.NodeID]Life{"a": well, "b": dead}, "a"},
		{"alone, the other does not see it", []cluster.Sighting{a, misses}, []cluster.NodeID{"a"}, "", map[cluster.NodeID]Life{"a": well, "b": well}, "a"},
	} {
		id, ok := NextSteward(cluster.Shares{Sightings: c.sightings}, cluster.Mount{ID: "m", Members: c.members, Steward: c.steward}, func(id cluster.NodeID) Life { return c.lives[id] })
		if id != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q %v, want %q", c.name, id, ok, c.want)
		}
	}
}
