package cli

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/gatesync/gatesync/fallback/target"
)

// pushProgress shows how far a push is: a bar where a person watches, a line
// every few seconds otherwise. Safe for concurrent use.
type pushProgress struct {
	mu    sync.Mutex
	w     io.Writer
	pool  *mpb.Progress // nil: lines
	bar   *mpb.Bar
	tree  string
	phase string
	last  time.Time // a line was printed
	begun time.Time
	ended time.Duration
	now   atomic.Pointer[target.Progress] // the bar's own goroutine reads it
}

func newPushProgress(w io.Writer) *pushProgress {
	p := &pushProgress{w: w, begun: time.Now(), last: time.Now()}
	if isTerminal(w) {
		p.pool = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	}
	return p
}

// show takes the latest figures.
func (p *pushProgress) show(x target.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.Store(&x)
	if p.pool == nil {
		if time.Since(p.last) >= lineEvery {
			p.last = time.Now()
			fmt.Fprintln(p.w, p.words())
		}
		return
	}
	total, done := x.Total, x.Done
	if x.Phase == "send" {
		total, done = x.Of, x.Bytes
	}
	if p.bar == nil || p.tree != x.Tree || p.phase != x.Phase {
		p.over()
		p.tree, p.phase = x.Tree, x.Phase
		p.bar = p.pool.AddBar(0, mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(x.Tree+" "), decor.Any(func(decor.Statistics) string { return p.words() + " " })),
			mpb.AppendDecorators(p.rate()...))
	}
	p.bar.SetTotal(max(total, 1), false)
	p.bar.SetCurrent(done)
}

// rate is speed and time left, of what is sent.
func (p *pushProgress) rate() []decor.Decorator {
	if p.phase != "send" {
		return nil
	}
	return []decor.Decorator{decor.AverageSpeed(decor.SizeB1024(0), "% .1f"), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)}
}

func (p *pushProgress) words() string {
	x := p.now.Load()
	switch x.Phase {
	case "send":
		return fmt.Sprintf("sending: %s of %s files, %s of %s, %s on the wire", count(x.Done), count(x.Total), size(x.Bytes), size(x.Of), size(x.Wire))
	case "apply":
		return fmt.Sprintf("putting in place: %s of %s", count(x.Done), count(x.Total))
	}
	return fmt.Sprintf("comparing: %s entries looked at", count(x.Done))
}

// over ends the bar under way.
func (p *pushProgress) over() {
	if p.bar != nil {
		p.bar.SetTotal(-1, true)
		p.bar = nil
	}
}

// end leaves the terminal in order.
func (p *pushProgress) end() {
	p.mu.Lock()
	p.over()
	p.ended = time.Since(p.begun)
	p.mu.Unlock()
	if p.pool != nil {
		p.pool.Wait()
	}
}

// took is how long it was, up to end.
func (p *pushProgress) took() time.Duration { return p.ended }
