package syncer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/cluster"
)

// waters is several nodes that look for each other: the log, and what lies in
// which directory. It plays the placer's part without a disk.
type waters struct {
	shares cluster.Shares
	dirs   map[string]map[cluster.NodeID]string // directory → nonces that lie there
	nodes  map[cluster.NodeID]*boat
	gone   map[cluster.NodeID]bool // no members any more
}

type boat struct {
	dir    string
	s      shore
	starts int
}

func newWaters() *waters {
	return &waters{dirs: map[string]map[cluster.NodeID]string{}, nodes: map[cluster.NodeID]*boat{}, gone: map[cluster.NodeID]bool{}}
}

// start starts a node, or starts it again, with its tree in a directory.
func (w *waters) start(id cluster.NodeID, dir, storage string) {
	b := w.nodes[id]
	if b == nil {
		b = &boat{}
		w.nodes[id] = b
	}
	b.starts++
	b.dir = dir
	b.s = shore{
		self: id, storage: storage, mount: "m-" + string(id), nonce: fmt.Sprintf("%s%d", id, b.starts),
		missed: map[cluster.NodeID]string{},
		member: func(id cluster.NodeID) bool { return !w.gone[id] }, name: func(id cluster.NodeID) string { return string(id) },
	}
	if w.dirs[dir] == nil {
		w.dirs[dir] = map[cluster.NodeID]string{}
	}
	w.dirs[dir][id] = b.s.nonce
	b.read(w)
}

func (b *boat) read(w *waters) {
	b.s.found = map[cluster.NodeID]string{}
	for id, nonce := range w.dirs[b.dir] {
		if id != b.s.self {
			b.s.found[id] = nonce
		}
	}
}

// settle lets all of some nodes do what is due until nothing is, and returns
// where each one's tree lies.
func (w *waters) settle(t *testing.T, ids ...cluster.NodeID) string {
	t.Helper()
	for round := 0; ; round++ {
		busy := false
		for _, id := range ids {
			b := w.nodes[id]
			b.s.log = w.shares
			n := b.s.decide()
			if n.look {
				b.read(w)
				for _, g := range w.shares.Sightings {
					if claims(g, id) && b.s.found[g.Node] != g.Nonce {
						b.s.missed[g.Node] = g.Nonce
					}
				}
				n = b.s.decide()
				busy = true
			}
			if n.say != nil {
				w.say(*n.say)
				busy = true
			}
		}
		if !busy {
			break
		}
		if round > 20 {
			t.Fatalf("they never come to rest: %+v", w.shares)
		}
	}
	var out []string
	for _, id := range ids {
		b := w.nodes[id]
		b.s.log = w.shares
		p := b.s.decide().place
		switch {
		case p.Unknown:
			out = append(out, fmt.Sprintf("%s unknown (%s)", id, p.Why))
		case p.Mount == "":
			out = append(out, fmt.Sprintf("%s local", id))
		default:
			out = append(out, fmt.Sprintf("%s on %s", id, p.Mount))
		}
	}
	return strings.Join(out, ", ")
}

// forget is the machine, when a node was removed.
func (w *waters) forget(id cluster.NodeID) {
	all := w.shares.Sightings
	w.shares.Sightings = nil
	for _, g := range all {
		if g.Node != id {
			w.say(g)
		}
	}
}

// say is the machine, as far as mounts matter here: groups of pairs that see
// each other; raftstore has the whole of it.
func (w *waters) say(g cluster.Sighting) {
	var all []cluster.Sighting
	for _, old := range w.shares.Sightings {
		if old.Node != g.Node {
			all = append(all, old)
		}
	}
	all = append(all, g)
	old := w.shares
	w.shares = cluster.Shares{Sightings: all}
	in := map[cluster.NodeID]bool{}
	for _, first := range all {
		if in[first.Node] {
			continue
		}
		m := cluster.Mount{ID: first.Mount, Members: []cluster.NodeID{first.Node}}
		for _, other := range all {
			if other.Node != first.Node && cluster.Mutual(first, other) {
				m.Members = append(m.Members, other.Node)
				in[other.Node] = true
			}
		}
		for _, id := range m.Members {
			if was, ok := old.MountOf(id); ok {
				m.ID = was.ID
				break
			}
		}
		if len(m.Members) > 1 || len(first.Sees) > 0 || first.Storage == StorageDirect {
			w.shares.Mounts = append(w.shares.Mounts, m)
		}
	}
}

func (w *waters) steward(mount string, id cluster.NodeID) {
	for i := range w.shares.Mounts {
		if w.shares.Mounts[i].ID == mount {
			w.shares.Mounts[i].Steward = id
		}
	}
}

func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		name string
		play func(t *testing.T, w *waters) string
		want string
	}{
		{"each its own directory", func(t *testing.T, w *waters) string {
			w.start("a", "x", "auto")
			w.start("b", "y", "auto")
			return w.settle(t, "a", "b")
		}, "a local, b local"},
		{"one for both", func(t *testing.T, w *waters) string {
			w.start("a", "x", "auto")
			w.settle(t, "a")
			w.start("b", "x", "auto")
			return w.settle(t, "a", "b")
		}, "a on m-b, b on m-b"},
		{"the second waits for the first one's word", func(t *testing.T, w *waters) string {
			w.start("a", "x", "auto")
			w.start("b", "x", "auto")
			return w.settle(t, "b")
		}, "b unknown (waiting for a to say whether it has the same directory)"},
		{"copied with its nonces", func(t *testing.T, w *waters) string {
			w.start("a", "x", "auto")
			w.dirs["y"] = map[cluster.NodeID]string{"a": w.dirs["x"]["a"]}
			w.start("b", "y", "auto")
			return w.settle(t, "a", "b")
		}, "a local, b local"},
		{"a stale nonce of a node that lives elsewhere", func(t *testing.T, w *waters) string {
			w.start("a", "x", "auto")
			w.start("a", "z", "auto")
			w.start("b", "x", "auto")
			return w.settle(t, "a", "b")
		}, "a local, b local"},
		{"both restart at once", func(t *testing.T, w *waters) string {
			w.start("a", "x", "auto")
			w.start("b", "x", "auto")
			w.settle(t, "a", "b")
			w.start("a", "x", "auto")
			w.start("b", "x", "auto")
			return w.settle(t, "a", "b")
		}, "a on m-b, b on m-b"},
		{"one moves to a directory of its own", func(t *testing.T, w *waters) string {
			w.start("a", "x", "auto")
			w.start("b", "x", "auto")
			w.settle(t, "a", "b")
			w.start("b", "y", "auto")
			return w.settle(t, "b", "a")
		}, "b local, a local"},
		{"the other is dead, and the leader says so", func(t *testing.T, w *waters) string {
			w.start("a", "x", "auto")
			w.start("b", "x", "auto")
			w.settle(t, "a", "b")
			w.start("b", "x", "auto")
			before := w.settle(t, "b")
			w.steward(w.shares.Mounts[len(w.shares.Mounts)-1].ID, "b")
			return before + "; " + w.settle(t, "b")
		}, "b unknown (waiting for a to say whether it has the same directory); b on m-b"},
		{"the other was removed", func(t *testing.T, w *waters) string {
			w.start("a", "x", "auto")
			w.start("b", "x", "auto")
			w.settle(t, "a", "b")
			w.gone["a"] = true
			w.start("b", "x", "auto")
			return w.settle(t, "b")
		}, "b local"},
		{"local, and shared after all", func(t *testing.T, w *waters) string {
			w.start("a", "x", "auto")
			w.start("b", "x", "local")
			return w.settle(t, "a", "b")
		}, "a on m-b, b unknown (storage is local, but a has the same directory: set storage to auto on both, or choose another directory)"},
		{"direct, the first of several", func(t *testing.T, w *waters) string {
			w.start("a", "x", "direct")
			return w.settle(t, "a")
		}, "a on m-a"},
		{"direct, and not shared", func(t *testing.T, w *waters) string {
			w.start("a", "x", "direct")
			w.start("b", "y", "direct")
			return w.settle(t, "a", "b")
		}, "a unknown (storage is direct, and so it is on b, which does not see this directory: mount the same one on both, or set storage to auto), " +
			"b unknown (storage is direct, and so it is on a, which does not see this directory: mount the same one on both, or set storage to auto)"},
		{"two mounts", func(t *testing.T, w *waters) string {
			w.start("a", "x", "direct")
			w.start("b", "x", "direct")
			w.start("c", "y", "direct")
			w.start("d", "y", "direct")
			return w.settle(t, "a", "b", "c", "d")
		}, "a on m-b, b on m-b, c on m-d, d on m-d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.play(t, newWaters()); got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}
