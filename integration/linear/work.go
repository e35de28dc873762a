package linear

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
)

// Client is how one client reaches its node. Each is used by one goroutine. An
// error of Propose that is cluster.ErrNotCommitted says that nothing was
// committed; one of a read is no answer.
type Client interface {
	Propose(ctx context.Context, p Propose) (Proposed, error)
	Read(ctx context.Context, r Read) (Found, error)
	// ReadLocal reads what the client's own node has seen.
	ReadLocal(ctx context.Context, r Read) (Found, error)
}

// Work says what clients do.
type Work struct {
	Seed    uint64
	Clients []Client
	Groups  [][]string    // paths; of at most maxGroup each, all distinct
	Timeout time.Duration // of one call
	// Patience is how long the clients may go on after ctx until Enough has happened:
	// how much that is within a span is the machine's affair.
	Patience time.Duration
	Pause    time.Duration // after a call that failed, so that a dead node is not asked at full speed
}

// ContentSize is the size of every content that Run makes up.
const ContentSize = 48

// Run drives all clients until ctx ends, and enough has happened, and returns
// what they saw.
func Run(ctx context.Context, w Work) *History {
	h := NewHistory()
	var all sync.WaitGroup
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	for i, c := range w.Clients {
		all.Go(func() {
			worker{Work: w, id: i, to: c, rng: rand.New(rand.NewPCG(w.Seed, uint64(i))), known: map[string]Value{}, history: h}.run(longer)
		})
	}
	<-ctx.Done()
	for last := time.Now().Add(w.Patience); !h.Counts().Enough() && time.Now().Before(last); {
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	all.Wait()
	return h
}

// worker is one client's goroutine.
type worker struct {
	Work
	id      int
	to      Client
	rng     *rand.Rand
	known   map[string]Value // what it was told last; perhaps long out of date
	made    int
	history *History
}

func (w worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		group := w.rng.IntN(len(w.Groups))
		var err error
		if dice := w.rng.IntN(10); dice < 3 {
			err = w.read(ctx, group, false)
		} else if dice < 4 {
			err = w.read(ctx, group, true)
		} else {
			err = w.propose(ctx, group)
		}
		if err == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(w.Pause):
		}
	}
}

func (w *worker) read(ctx context.Context, group int, local bool) error {
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	ask := w.to.Read
	if local {
		ask = w.to.ReadLocal
	}
	op := operation{client: w.id, group: group, read: &Read{Paths: w.some(w.Groups[group])}, local: local, call: w.history.now()}
	found, err := ask(ctx, *op.read)
	op.ret = w.history.now()
	if err != nil {
		return err
	}
	op.found = found
	for _, p := range op.read.Paths {
		w.known[p] = found.Values[p]
	}
	w.history.add(op)
	return nil
}

// propose changes some paths of a group. Its expectations are what the client
// was told last, so that with more than one client many are refused.
func (w *worker) propose(ctx context.Context, group int) error {
	p := &Propose{Tag: fmt.Sprintf("c%d-%d", w.id, w.made), Atomic: w.rng.IntN(2) == 0}
	w.made++
	for _, path := range w.some(w.Groups[group]) {
		now := w.known[path]
		c := Change{Path: path, Expect: now.Revision}
		switch dice := w.rng.IntN(20); {
		case dice == 0:
			c.Expect = uint64(w.rng.IntN(50)) // rubbish
		case dice == 1:
			c.Digest = now.Digest // perhaps in force
		case dice < 5: // delete
		default:
			c.Content = fmt.Sprintf("%-*s\n", ContentSize-1, p.Tag+" "+path)
			c.Digest = manifest.DigestOf([]byte(c.Content)).String()
		}
		p.Changes = append(p.Changes, c)
	}
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	op := operation{client: w.id, group: group, propose: p, call: w.history.now()}
	out, err := w.to.Propose(ctx, *p)
	op.ret = w.history.now()
	switch {
	case err == nil:
		op.proposed = out
		w.learn(p, out)
	case errors.Is(err, cluster.ErrNotCommitted):
		op.end = nothing
	default:
		op.end = unknown
	}
	w.history.add(op)
	return err
}

// learn takes over what an answer says of the paths.
func (w *worker) learn(p *Propose, out Proposed) {
	for _, c := range p.Changes {
		switch current, refused := out.Refused[c.Path]; {
		case refused:
			w.known[c.Path] = Value{Revision: current, Digest: w.known[c.Path].Digest}
		case out.Revision > 0 && c.Digest == "":
			w.known[c.Path] = Value{}
		case out.Revision > 0:
			w.known[c.Path] = Value{Revision: out.Revision, Digest: c.Digest}
		}
	}
}

// some picks at least one path, in order.
func (w *worker) some(paths []string) []string {
	for {
		var out []string
		for _, p := range paths {
			if w.rng.IntN(2) == 0 {
				out = append(out, p)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
}
