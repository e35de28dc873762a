package syncer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// bay is the log's part of mounts for boxes that share a root.
type bay struct {
	hub     *hub
	mu      sync.Mutex
	w       *waters
	removed map[cluster.NodeID]bool
	// epochs is the newest of any steward.
	epochs uint64
}

// berth is one node's view of a bay; it implements Mounts.
type berth struct {
	*bay
	deaf atomic.Bool // it hears from no leader any more, and can tell the log nothing
}

func (b *berth) Say(ctx context.Context, g cluster.Sighting) error {
	if b.deaf.Load() {
		return errors.New("no leader")
	}
	return b.bay.Say(ctx, g)
}

func (b *bay) change(fn func(*waters)) {
	b.mu.Lock()
	fn(b.w)
	b.mu.Unlock()
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	for _, ch := range b.hub.watch {
		token(ch)
	}
}

func (b *bay) Shares() cluster.Shares {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.w.shares
	s.Mounts = append([]cluster.Mount(nil), s.Mounts...)
	return s
}

func (b *bay) Member(id cluster.NodeID) (string, bool) { return string(id), !b.Removed(id) }

func (b *bay) Removed(id cluster.NodeID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.removed[id]
}

// remove takes a node out of the cluster.
func (b *bay) remove(id cluster.NodeID) {
	b.change(func(w *waters) {
		b.removed = map[cluster.NodeID]bool{id: true}
		w.forget(id)
	})
}

func (b *bay) Say(_ context.Context, g cluster.Sighting) error {
	b.change(func(w *waters) { w.say(g) })
	return nil
}

func (b *bay) Former(p manifest.Path, e manifest.Entry) bool {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	for _, c := range b.hub.commits {
		for _, ch := range c.Changes {
			if ch.Path == p && ch.New.SameContent(e) {
				return true
			}
		}
	}
	return false
}

func (b *bay) Stands(ref manifest.BlobRef) bool {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	return slices.ContainsFunc(b.hub.commits, func(c manifest.Commit) bool {
		return slices.ContainsFunc(c.Changes, func(ch manifest.Committed) bool { return ch.New.HasContent() && ch.New.Blob() == ref })
	})
}

func (b *berth) Heard() time.Time {
	if b.deaf.Load() {
		return time.Time{}
	}
	return time.Now()
}

// name makes a node the steward of the next epoch.
func (b *bay) name(id cluster.NodeID) {
	b.change(func(w *waters) {
		for i := range w.shares.Mounts {
			if strings.Contains(fmt.Sprint(w.shares.Mounts[i].Members), string(id)) {
				w.shares.Mounts[i].Steward = id
				b.epochs++ // of the tree: none comes twice, whatever becomes of mounts
				w.shares.Mounts[i].Epoch = b.epochs
			}
		}
	})
}

// stewards tells whether a node is the steward of a mount.
func (b *bay) stewards(id cluster.NodeID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.w.shares.Mounts {
		if m.Steward == id {
			return true
		}
	}
	return false
}

// moored is two boxes on one root and one with a root of its own.
type moored struct {
	a, b, c *box
	bay     *bay
	berths  map[string]*berth
	writes  map[string]*atomic.Int64 // changes of the shared tree, by node
	faults  map[string]*errorfs.Switch
}

func moor(t *testing.T) *moored {
	h := newHub()
	m := &moored{a: newBox(t, h, "a"), b: newBox(t, h, "b"), c: newBox(t, h, "c"), bay: &bay{hub: h, w: newWaters()}, berths: map[string]*berth{}, writes: map[string]*atomic.Int64{}, faults: map[string]*errorfs.Switch{}}
	m.b.root = m.a.root
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, c := range h.commits {
			for _, ch := range c.Changes {
				t.Logf("revision %d of %s from %v: %s %v → %v", c.Revision, c.ID.Node, c.Origin, ch.Path, ch.Old.Entry, ch.New)
			}
		}
	})
	for _, x := range []*box{m.a, m.b, m.c} {
		berth, writes, faults := &berth{bay: m.bay}, &atomic.Int64{}, &errorfs.Switch{}
		m.berths[x.node.id], m.writes[x.node.id], m.faults[x.node.id] = berth, writes, faults
		x.change = func(c *Config) {
			c.Mounts, c.Nudge = berth, true
			c.OpenRoot = func() (vfs.FS, error) {
				r, err := vfs.OpenRoot(x.root, vfs.Options{Node: c.Self})
				if err != nil {
					return nil, err
				}
				return errorfs.Wrap(r, errorfs.Func(func(op, arg string) error {
					switch op {
					case "Exchange", "Place", "Replace", "TakeOut", "Mkdir", "Rmdir":
						writes.Add(1)
					}
					return faults.Op(op, arg)
				})), nil
			}
		}
		x.start()
	}
	m.a.until("the two have one directory", func() bool { return m.a.s.onMount() && m.b.s.onMount() })
	m.steward(m.a)
	return m
}

// steward makes a box the steward and waits until it has taken that up.
func (m *moored) steward(x *box) {
	id := cluster.NodeID(x.node.id)
	m.bay.name(id)
	x.until("it has taken up its work", func() bool {
		if !m.bay.stewards(id) { // it was between two mounts just then
			m.bay.name(id)
		}
		return x.s.scans()
	})
}

func (m *moored) commits() int {
	m.bay.hub.mu.Lock()
	defer m.bay.hub.mu.Unlock()
	return len(m.bay.hub.commits)
}

func (m *moored) follow(rev int) {
	m.a.t.Helper()
	for _, x := range []*box{m.a, m.b, m.c} {
		x.until(fmt.Sprintf("%s has applied %d", x.node.id, rev), func() bool {
			at, err := x.s.Applied(context.Background())
			return err == nil && at >= manifest.Revision(rev)
		})
	}
}

// Both nodes see each write, and it becomes one revision; what comes from
// elsewhere one of them writes.
func TestOneTreeOfTwoNodes(t *testing.T) {
	m := moor(t)
	for i, x := range []*box{m.a, m.b} {
		x.write("f", fmt.Sprintf("by %d", i))
		m.c.until("it stands elsewhere", func() bool { return m.c.read("f") == fmt.Sprintf("by %d", i) })
		m.follow(i + 1)
	}
	if n := m.commits(); n != 2 {
		t.Errorf("two writes are %d revisions", n)
	}
	if w := m.writes["a"].Load() + m.writes["b"].Load(); w != 0 {
		t.Errorf("what stood there was written again, %d times", w)
	}
	m.c.write("d/g", "from elsewhere")
	m.a.until("it stands here", func() bool { return m.a.read("d/g") == "from elsewhere" })
	m.follow(m.commits())
	if m.writes["a"].Load() != 2 || m.writes["b"].Load() != 0 {
		t.Errorf("a directory and a file from elsewhere: the steward has changed the tree %d times, the other node %d times", m.writes["a"].Load(), m.writes["b"].Load())
	}
	m.b.remove("d/g")
	m.c.until("it is gone elsewhere", func() bool { return m.c.tree()["d/g"] == "" })
	if conflicts, err := m.a.s.Conflicts(); err != nil || len(conflicts) > 0 {
		t.Errorf("conflicts %v, %v", conflicts, err)
	}
}

// A steward that hears from no leader writes nothing, also before it knows that
// another one was named; nor does one that finds a newer epoch beside the tree.
func TestStewardStopsWhenItIsNotSure(t *testing.T) {
	m := moor(t)
	m.berths["a"].deaf.Store(true)
	m.c.write("f", "one")
	m.steward(m.b)
	m.b.until("the next one writes", func() bool { return m.b.read("f") == "one" })
	if w := m.writes["a"].Load(); w != 0 {
		t.Errorf("a steward that was not sure has changed the tree %d times", w)
	}
	m.berths["a"].deaf.Store(false)
	m.follow(m.commits())

	// Beside the tree stands an epoch of which the log has said nothing here yet.
	at, _ := m.b.s.placer.current()
	b, err := json.Marshal(stewardNoted{Mount: at.Mount, Epoch: at.Epoch + 1, Node: "a", Generation: 1})
	if err != nil {
		t.Fatal(err)
	}
	g, done, err := m.a.s.root.borrow()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if err := g.fs.WriteNote(stewardNote, b); err != nil {
		t.Fatal(err)
	}
	m.b.until("the look at it is not fresh any more", func() bool { return m.b.s.sure() != nil })
	before := m.writes["b"].Load()
	m.c.write("g", "two")
	m.steward(m.a)
	m.a.until("the next one writes", func() bool { return m.a.read("g") == "two" })
	if w := m.writes["b"].Load(); w != before {
		t.Errorf("a steward that was superseded has changed the tree %d times", w-before)
	}
}

// That the steward's root is being asked by somebody else just now says nothing
// about the office; a root that has been silent for long does.
func TestStewardWhoseRootIsBeingAsked(t *testing.T) {
	m := moor(t)
	s := m.a.s
	m.a.until("a is the steward", func() bool { at, taken := s.placer.current(); return at.Steward == "a" && taken == at.Epoch })
	// The placer asks, too, in its own time.
	m.a.until("nobody else asks", func() bool { return s.beat.pending.CompareAndSwap(0, s.clock()) })
	if !s.placer.takeUp() {
		t.Error("it does not want to ask again")
	}
	if at, taken := s.placer.current(); taken != at.Epoch {
		t.Error("the office was given up because of another question")
	}
	s.beat.pending.Store(s.clock() - int64(2*hungAfter))
	if s.placer.takeUp() {
		t.Error("a root that is silent for long is taken for one that is being asked")
	}
	if _, taken := s.placer.current(); taken != 0 {
		t.Error("the office is kept although the root does not answer")
	}
	s.beat.pending.Store(0)
	m.a.until("it takes the office up again", func() bool { at, taken := s.placer.current(); return taken == at.Epoch })
}
