package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"
)

const treeName = "server"

// epoch is when every run begins.
var epoch = time.Unix(1_700_000_000, 0)

// world owns virtual time and everything that happens in it.
type world struct {
	opt    Options
	rng    *rand.Rand
	now    time.Time
	queue  happenings
	serial uint64

	nodes   []*node
	mount   *mount          // of some of them; mostly nil
	cut     map[[2]int]bool // links that carry nothing, by direction
	log     []record        // committed, in order
	voters  []string        // of the newest configuration in the log
	servers []string        // voters and non-voters of it

	oracle oracle
	ledger ledger
	texts  int  // contents written so far: each is unique
	peace  bool // nothing disturbs any more
	fault  error
}

func newWorld(opt Options) *world {
	return &world{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 42)), now: epoch,
		cut: map[[2]int]bool{}, oracle: newOracle(), ledger: newLedger(),
	}
}

// happening is something that will happen.
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
	old[len(old)-1] = happening{}
	*h = old[:len(old)-1]
	return it
}

// after schedules do.
func (w *world) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.queue, happening{w.now.Add(d), w.serial, do})
}

// during schedules do for some moment of the chaos.
func (w *world) during(do func()) { w.after(w.some(w.opt.Chaos), do) }

// some is a random duration up to most.
func (w *world) some(most time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(most)) + 1)
}

// mostly is a random duration up to most, now and then a hundred times that:
// what is usually quick is never quick by right.
func (w *world) mostly(most time.Duration) time.Duration {
	if !w.peace && w.chance(0.02) {
		most *= 100
	}
	return w.some(most)
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) trace(format string, args ...any) {
	if w.opt.Trace != nil {
		w.opt.Trace(fmt.Sprintf("%8.3fs ", w.now.Sub(epoch).Seconds()) + fmt.Sprintf(format, args...))
	}
}

// fail notes the first promise that is broken; it ends the run.
func (w *world) fail(format string, args ...any) {
	if w.fault == nil {
		w.fault = fmt.Errorf("at %.3fs: "+format, append([]any{w.now.Sub(epoch).Seconds()}, args...)...)
	}
}

func (w *world) runFor(d time.Duration) {
	end := w.now.Add(d)
	for w.fault == nil && len(w.queue) > 0 && !w.queue[0].at.After(end) {
		h := heap.Pop(&w.queue).(happening)
		w.now = h.at
		h.do()
	}
	w.now = end
}
