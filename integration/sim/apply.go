package sim

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// apply takes the steps one after another, each at its own moment, so that
// gateways and crashes come in between.
func (n *node) apply(steps []syncer.Step) {
	n.later(2*time.Millisecond, func() {
		r := n.step(steps[0])
		n.post(syncer.Applied{Results: []syncer.StepResult{r}})
		if len(steps) > 1 {
			n.apply(steps[1:])
		}
	})
}

func (n *node) step(s syncer.Step) syncer.StepResult {
	d, res := n.disk, syncer.StepResult{Path: s.Path}
	i := d.at[s.Path]
	switch {
	case i != nil && i.writing:
		res.Outcome = syncer.StepBusy
		return res
	case !i.entry().Same(s.Expect.Entry), !d.isDir(s.Path.Dir()), s.Op == syncer.Remove && len(d.below(s.Path)) > 0:
		res.Outcome = syncer.StepSurprise
		return res
	case i != nil && i.kind == manifest.Dir && s.Op != syncer.PutDir && len(d.below(s.Path)) > 0:
		res.Outcome = syncer.StepSurprise
		return res
	}
	n.keeps(s, i)
	if s.Aside != nil {
		n.asides = append(n.asides, *s.Aside)
	}
	n.place(s, i)
	n.w.trace("node %d step %v %q at %d", n.index, s.Op, s.Path, s.New.Revision)
	if s.Op == syncer.Remove {
		delete(n.saved.ancestors, s.Path)
	} else {
		a := syncer.Ancestor{Entry: s.New.Entry, Revision: s.New.Revision, Author: s.New.Author, Stamp: d.at[s.Path].stamp}
		if !n.w.chance(0.05) || n.alive { // persisted with the step, unless the daemon dies first
			n.saved.ancestors[s.Path] = a
		}
		res.Ancestor = &a
	}
	res.Outcome = syncer.StepDone
	return res
}

func (n *node) place(s syncer.Step, i *inode) {
	d := n.disk
	switch s.Op {
	case syncer.PutFile:
		text, ok := n.blobs[s.New.Entry.Digest]
		if !ok {
			n.w.fail("node %d materializes %q without its content", n.index, s.Path)
		}
		f := d.put(s.Path, text, s.New.Entry.Mode)
		f.flushed = text
	case syncer.SetMode:
		i.mode = s.New.Entry.Mode
		i.flushed = i.text // its content may be a gateway's, never flushed so far
		d.clock++
		i.stamp.CTime = d.clock
	case syncer.PutDir:
		if i != nil && i.kind != manifest.Dir {
			delete(d.at, s.Path)
		}
		if d.isDir(s.Path) {
			i.mode = s.New.Entry.Mode
		} else {
			d.mkdir(s.Path)
			d.at[s.Path].mode = s.New.Entry.Mode
		}
	case syncer.Remove:
		delete(d.at, s.Path)
	default:
		n.w.fail("unexpected op %d", s.Op)
	}
}

// keeps checks NoLoss at the moment of the loss: content that a step takes
// from the disk is in the log's history or kept aside.
func (n *node) keeps(s syncer.Step, i *inode) {
	if i == nil || i.kind != manifest.File || s.Op == syncer.SetMode || i.text == "" {
		return
	}
	lost := i.entry().Digest
	if s.New.Entry.Digest == lost || n.w.inHistory(lost) {
		return
	}
	if s.Aside != nil && s.Aside.Lost.Digest == lost {
		if _, ok := n.blobs[lost]; ok {
			return
		}
	}
	n.w.fail("NoLoss: node %d takes %q (%s) away from %q and keeps it nowhere", n.index, i.text, lost.Short(), s.Path)
}
