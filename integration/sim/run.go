package sim

import (
	"fmt"
	"slices"
	"time"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// How long a run is given after the last disturbance, and after the last word
// of its operators.
const (
	toSettle  = 3 * time.Minute
	toObey    = time.Minute
	lastWords = 4 // rulings after which nothing may be held any more
)

// Run plays one seed and returns the first promise that was broken.
func Run(opt Options) error {
	w := newWorld(opt)
	w.found()
	w.disturb()
	w.runFor(opt.Chaos)
	w.pacify()
	w.settle(toSettle)
	if w.fault == nil {
		w.checkSettled()
	}
	for range lastWords {
		if w.fault == nil && w.speak() {
			w.settle(toObey)
		}
	}
	if w.fault == nil {
		w.checkPeace()
	}
	return w.fault
}

// settle gives the nodes some time, and a little more where one of them is in
// the middle of something: a scan is never far.
func (w *world) settle(d time.Duration) {
	w.runFor(d)
	for range 10 {
		if w.fault == nil && slices.ContainsFunc(w.nodes, func(n *node) bool { return n.alive && !n.root.lost && n.loop.Status().Unsettled > 0 }) {
			w.runFor(500 * time.Millisecond)
		}
	}
}

// found makes the cluster: its first entries are in every node's machine.
func (w *world) found() {
	for range w.opt.Nodes {
		n := w.newNode()
		n.saved.joined = true
		w.voters = append(w.voters, n.id)
	}
	w.servers = w.voters
	if w.opt.Mounted > 0 {
		w.mountAll(w.nodes[:w.opt.Mounted])
	}
	w.append(record{voters: w.voters})
	w.append(record{cmd: command(&pb.Command{Do: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: "c-sim"}}})})
	for _, n := range w.nodes {
		w.append(record{cmd: n.announcement()})
	}
	w.append(record{cmd: command(&pb.Command{Do: &pb.Command_PutTree{PutTree: &pb.PutTree{Name: treeName, Id: "t-sim", Generation: 1}}})})
	// No gateway touches this one: a tree left empty would be held, rightly.
	n := w.nodes[0]
	n.finished("keep", n.disk.put("keep", w.text(), n.wall()))
	for _, n := range w.nodes {
		n.start()
	}
}

func command(c *pb.Command) *pb.Command {
	c.Format = 1
	return c
}

// disturb schedules everything that is not as it should be.
func (w *world) disturb() {
	for range w.opt.Writes {
		w.during(func() { w.someNode().gatewayActs() })
	}
	for range w.opt.Crashes {
		w.during(func() {
			n := w.someNode()
			n.crash(w.chance(0.3))
			w.after(w.some(8*time.Second), n.start)
		})
	}
	for range w.opt.Cuts {
		w.during(w.cutSome)
	}
	for range w.opt.Steps {
		w.during(func() { w.someNode().stepClock() })
	}
	for range w.opt.Joins {
		w.during(w.join)
	}
	for range w.opt.Removals {
		w.during(w.removeSome)
	}
	for range w.opt.Shuffles {
		w.during(w.demoteSome)
	}
	for range w.opt.Wipes {
		w.during(w.wipeSome)
	}
	for range w.opt.Unmounts {
		w.during(func() { w.someNode().unmount() })
	}
	for range w.opt.Trims {
		w.during(w.trim)
	}
	for range w.opt.Rulings {
		w.during(func() { w.someNode().ruleSome() })
	}
	for range w.opt.Sweeps {
		w.during(w.sweep)
	}
	w.steer()
}

// pacify ends all disturbance.
func (w *world) pacify() {
	w.trace("peace")
	w.peace = true
	clear(w.cut)
	for _, n := range w.nodes {
		n.mount()
		n.start()
	}
}

// someNode is one of those that were not removed.
func (w *world) someNode() *node {
	for {
		if n := w.nodes[w.rng.IntN(len(w.nodes))]; !n.gone {
			return n
		}
	}
}

func (w *world) node(id string) *node {
	for _, n := range w.nodes {
		if n.id == id {
			return n
		}
	}
	panic(fmt.Sprintf("no node %q", id))
}
