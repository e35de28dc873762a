package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// Options size a run.
type Options struct {
	Seed    uint64
	Nodes   int
	Paths   int           // how many names the gateways choose from
	Writes  int           // gateway operations before peace
	Chaos   time.Duration // virtual time over which they are spread
	Crashes int           // of daemons (and some of them of machines)
	Cuts    int           // network partitions
	Trace   func(string)  // nil: silent
}

// DefaultOptions is a run of moderate size: some milliseconds of real time.
func DefaultOptions(seed uint64) Options {
	return Options{Seed: seed, Nodes: 3, Paths: 12, Writes: 60, Chaos: 30 * time.Second, Crashes: 3, Cuts: 2}
}

const treeName = "server"

// world owns virtual time and everything that happens in it.
type world struct {
	opt    Options
	rng    *rand.Rand
	now    time.Time
	queue  happenings
	serial uint64
	nodes  []*node
	log    []*pb.Command // committed commands, in order
	cut    map[[2]int]bool
	texts  int // contents written so far, for unique content
	fault  error
	oracle oracle
}

type happening struct {
	at     time.Time
	serial uint64
	do     func()
}

type happenings []happening

func (h happenings) Len() int { return len(h) }
func (h happenings) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].serial < h[j].serial
}
func (h happenings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *happenings) Push(x any)   { *h = append(*h, x.(happening)) }
func (h *happenings) Pop() any {
	old := *h
	it := old[len(old)-1]
	*h = old[:len(old)-1]
	return it
}

// after schedules do.
func (w *world) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.queue, happening{w.now.Add(d), w.serial, do})
}

// some is a random duration up to most.
func (w *world) some(most time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(most)) + 1)
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) trace(format string, args ...any) {
	if w.opt.Trace != nil {
		w.opt.Trace(fmt.Sprintf("%8.3fs ", w.now.Sub(epoch).Seconds()) + fmt.Sprintf(format, args...))
	}
}

func (w *world) fail(format string, args ...any) {
	if w.fault == nil {
		w.fault = fmt.Errorf("at %.3fs: "+format, append([]any{w.now.Sub(epoch).Seconds()}, args...)...)
	}
}

var epoch = time.Unix(1_700_000_000, 0)

// Run plays one seed and returns the first promise that was broken.
func Run(opt Options) error {
	w := &world{opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 42)), now: epoch, cut: map[[2]int]bool{}}
	w.found()
	// No gateway touches this one: a tree left empty would be held, rightly.
	keep := w.nodes[0].disk.put("keep", w.text(), 0o644)
	keep.flushed = keep.text
	for _, n := range w.nodes {
		n.start(true)
	}
	w.disturb()
	w.runUntil(epoch.Add(opt.Chaos))
	w.pacify()
	w.runUntil(epoch.Add(opt.Chaos + 5*time.Minute))
	if w.fault == nil {
		w.checkPeace()
	}
	return w.fault
}

func (w *world) runUntil(end time.Time) {
	for w.fault == nil && len(w.queue) > 0 && !w.queue[0].at.After(end) {
		h := heap.Pop(&w.queue).(happening)
		w.now = h.at
		h.do()
	}
	w.now = end
}

// found makes the cluster: its first commands are in every node's machine.
func (w *world) found() {
	for i := range w.opt.Nodes {
		w.nodes = append(w.nodes, newNode(w, i))
	}
	w.commit(&pb.Command{Format: 1, Do: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: "c-sim"}}})
	for _, n := range w.nodes {
		w.commit(&pb.Command{Format: 1, Do: &pb.Command_PutMember{PutMember: &pb.PutMember{
			Member: &pb.Member{Id: n.id, Name: n.id, Store: n.store},
		}}})
	}
	w.commit(&pb.Command{Format: 1, Do: &pb.Command_PutTree{PutTree: &pb.PutTree{Name: treeName, Id: "t-sim", Generation: 1}}})
}

// commit appends to the log; every node applies it when it hears of it.
func (w *world) commit(c *pb.Command) { w.log = append(w.log, c) }

// disturb schedules gateways, crashes and partitions.
func (w *world) disturb() {
	for range w.opt.Writes {
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		w.after(w.some(w.opt.Chaos), n.gatewayActs)
	}
	for range w.opt.Crashes {
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		w.after(w.some(w.opt.Chaos), func() {
			n.crash(w.chance(0.3))
			w.after(w.some(8*time.Second), func() { n.start(false) })
		})
	}
	for range w.opt.Cuts {
		a, b := w.rng.IntN(w.opt.Nodes), w.rng.IntN(w.opt.Nodes)
		w.after(w.some(w.opt.Chaos), func() {
			w.trace("cut %d from %d", a, b)
			w.cut[[2]int{a, b}], w.cut[[2]int{b, a}] = true, true
			w.after(w.some(8*time.Second), func() { delete(w.cut, [2]int{a, b}); delete(w.cut, [2]int{b, a}) })
		})
	}
}

// pacify ends all disturbance.
func (w *world) pacify() {
	w.trace("peace")
	clear(w.cut)
	for _, n := range w.nodes {
		n.start(false)
	}
}

// connected tells whether two living nodes hear each other.
func (w *world) connected(a, b *node) bool {
	return a.alive && b.alive && (a == b || !w.cut[[2]int{a.index, b.index}])
}

// majority tells whether n and those it hears are one.
func (w *world) majority(n *node) bool {
	heard := 0
	for _, o := range w.nodes {
		if w.connected(n, o) {
			heard++
		}
	}
	return heard > len(w.nodes)/2
}

// propose is the way of a changeset through the modelled log. done is called
// with the answer, or with an error that may hide a commit.
func (w *world) propose(n *node, cs manifest.Changeset, done func(manifest.Result, error)) {
	w.after(w.some(20*time.Millisecond), func() {
		if !w.majority(n) || w.chance(0.03) {
			done(manifest.Result{}, fmt.Errorf("no quorum"))
			return
		}
		cmd := &pb.Command{Format: 1, TimeNs: w.now.UnixNano(), Do: &pb.Command_Propose{Propose: proto.FromChangeset(cs)}}
		w.commit(cmd)
		// The proposer's answer comes from a machine that has applied exactly
		// the log up to here.
		out := w.answer(len(w.log))
		if out.GetCode() == uint32(raftstore.CodeReceipts) {
			done(manifest.Result{}, fmt.Errorf("too few receipts")) // cut off while it spread the content
			return
		}
		if out.GetCode() != 0 {
			w.fail("node %d: changeset %s refused with code %d: %s", n.index, cs.ID, out.GetCode(), out.GetMessage())
		}
		lost := w.chance(0.03)
		w.after(w.some(10*time.Millisecond), func() {
			if lost {
				done(manifest.Result{}, fmt.Errorf("the answer was lost"))
				return
			}
			done(proto.ToResult(out.GetResult()), nil)
		})
		for _, o := range w.nodes {
			w.after(w.some(30*time.Millisecond), func() { o.hear() })
		}
	})
}
