package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// progress shows how far each tree is: bars where a person watches, a line
// every few seconds otherwise. One goroutine uses it.
type progress struct {
	w     io.Writer
	pool  *mpb.Progress // nil: lines
	bars  map[string]*mpb.Bar
	lines map[string]time.Time // when a tree's last line was printed
	now   func() time.Time
}

// lineEvery keeps logs of pipelines short.
const lineEvery = 3 * time.Second

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, bars: map[string]*mpb.Bar{}, lines: map[string]time.Time{}, now: time.Now}
	if isTerminal(w) {
		p.pool = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	}
	return p
}

// show takes a tree's latest figures.
func (p *progress) show(x *pb.Progress) {
	if p.pool == nil {
		p.line(x)
		return
	}
	bar, ok := p.bars[x.GetTree()]
	if !ok {
		bar = p.pool.AddBar(0, // of a bar that was made with a total no other can be set, and end would wait for it
			mpb.PrependDecorators(decor.Name(x.GetTree()+" ", decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersNoUnit("%d / %d paths"), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)))
		p.bars[x.GetTree()] = bar
	}
	bar.SetTotal(int64(x.GetTotal()), false)
	bar.SetCurrent(int64(x.GetDone()))
}

func (p *progress) line(x *pb.Progress) {
	if now := p.now(); now.Sub(p.lines[x.GetTree()]) >= lineEvery {
		p.lines[x.GetTree()] = now
		fmt.Fprintf(p.w, "%s: %s of %s paths\n", x.GetTree(), count(x.GetDone()), count(x.GetTotal()))
	}
}

// end leaves the terminal in order.
func (p *progress) end() {
	for _, b := range p.bars {
		b.SetTotal(-1, true)
	}
	if p.pool != nil {
		p.pool.Wait()
	}
}
