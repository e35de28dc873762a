package target

import (
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// Policy says what happens to what stands at the target and not in what is pushed.
type Policy string

// The policies.
const (
	// DeleteHeld deletes what an earlier push has brought, unless it is too much
	// at once; what was made or edited at the target is held.
	DeleteHeld Policy = "held"
	// DeleteYes deletes it, whatever it is and however much; what no push has
	// brought is kept aside first.
	DeleteYes Policy = "yes"
	// DeleteNo deletes nothing.
	DeleteNo Policy = "no"
)

// Valid tells whether it is one of them.
func (p Policy) Valid() bool { return p == DeleteHeld || p == DeleteYes || p == DeleteNo }

// What a Line is about.
const (
	WhatAdd    = "add"
	WhatChange = "change"
	WhatDelete = "delete"
	WhatHeld   = "held"   // it would be deleted or replaced, and a person has to say so
	WhatKept   = "kept"   // what stood there was kept aside
	WhatFailed = "failed" // Why says why
)

// Line is one path of a report.
type Line struct {
	Path manifest.Path
	What string
	Why  string
	Size int64
}

// state is what a plan is made of: pure values.
type state struct {
	disk   []syncer.Surveyed // in path order
	wants  []want            // in path order: what differs and is to stand there
	gone   map[manifest.Path]bool
	policy Policy
	limit  manifest.DeleteLimit
	recent int  // deletions by pushes of the last minute
	meant  bool // what goes was committed by the cluster whose tree this is: no number is too many
	rev    manifest.Revision
}

type want struct {
	path  manifest.Path
	entry manifest.Entry
}

// plan is what is to be done, and what is not.
type plan struct {
	steps   []syncer.Step
	lines   []Line // of what is not done
	deletes int    // files and symlinks among the steps
	need    []int  // the wants whose content the steps put in place
}

const (
	whyUnknown = "stands here and was not pushed: --delete=yes removes it (and keeps its content aside), --delete=no leaves it without a word"
	whyMass    = "would be deleted with many others: look at the source; --delete=yes deletes them"
	whyEdited  = "was edited here"
	whyStood   = "stood here before the first push"
	whyHolds   = "is to make way for a directory's removal that is held"
)

// decide makes the plan. It is pure.
func decide(s state) plan {
	var p plan
	disk := make(map[manifest.Path]*syncer.Surveyed, len(s.disk))
	files := 0
	retained := map[manifest.Path]bool{} // directories that something stays in
	retain := func(path manifest.Path) {
		for dir := path.Dir(); dir != "" && !retained[dir]; dir = dir.Dir() {
			retained[dir] = true
		}
	}
	closed := map[manifest.Path]string{}
	for i := range s.disk {
		v := &s.disk[i]
		disk[v.Path] = v
		switch {
		case v.Sight == syncer.Seen && v.Entry.IsDir() && v.Why != "":
			closed[v.Path] = v.Why
			retain(v.Path)
			retained[v.Path] = true
		case v.Sight == syncer.Seen && !v.Entry.IsDir():
			files++
		case v.Sight != syncer.Seen && v.Sight != syncer.Gone:
			retain(v.Path)
		}
	}
	fresh := map[manifest.Digest]int{} // content that comes: what goes with it was moved
	for _, w := range s.wants {
		if v := disk[w.path]; w.entry.HasContent() && (v == nil || v.Sight == syncer.Gone) {
			files++
			fresh[w.entry.Digest]++
		}
	}

	// What goes, files first: the brake counts them.
	var leaving []*syncer.Surveyed
	pending := 0
	for i := range s.disk {
		v := &s.disk[i]
		if !s.gone[v.Path] || v.Sight == syncer.Gone {
			continue
		}
		known := v.Entry.Same(v.Was.Entry)
		switch {
		case s.policy == DeleteNo:
			retain(v.Path)
		case v.Entry.IsDir():
			leaving = append(leaving, v) // decided by what is in it
		case !known && s.policy == DeleteHeld:
			p.lines = append(p.lines, Line{v.Path, WhatHeld, whyUnknown, v.Entry.Size})
			retain(v.Path)
		default:
			leaving = append(leaving, v)
			if fresh[v.Entry.Digest] > 0 {
				fresh[v.Entry.Digest]--
			} else {
				pending++
			}
		}
	}
	if s.policy == DeleteHeld && !s.meant && manifest.MassDeletion(s.limit, manifest.Deletions{Pending: pending, Recent: s.recent, Present: files}) {
		for _, v := range leaving {
			if !v.Entry.IsDir() {
				p.lines = append(p.lines, Line{v.Path, WhatHeld, whyMass, v.Entry.Size})
			}
			retain(v.Path)
		}
		leaving = nil
	}
	for _, v := range leaving {
		unknown := !v.Entry.Same(v.Was.Entry)
		switch {
		case retained[v.Path]:
		case v.Entry.IsDir() && unknown && s.policy == DeleteHeld:
			// Only empty ones come here: what is in others is held, and holds them.
			p.lines = append(p.lines, Line{v.Path, WhatHeld, whyUnknown, 0})
			retain(v.Path)
			retained[v.Path] = true
		default:
			p.steps = append(p.steps, syncer.NewStep(v.Observation, manifest.Node{Revision: s.rev}, aside(v)))
			if !v.Entry.IsDir() {
				p.deletes++
			}
		}
	}
	// A directory above an unknown one that is held above stays as well.
	p.steps = dropRetained(p.steps, retained)

	for i, w := range s.wants {
		v := disk[w.path]
		if v == nil {
			v = &syncer.Surveyed{Observation: syncer.Observation{Path: w.path, Sight: syncer.Gone}}
		}
		if why := shut(w.path, closed); why != "" {
			p.lines = append(p.lines, Line{w.path, WhatFailed, "its directory cannot be listed: " + why, w.entry.Size})
			continue
		}
		switch {
		case v.Sight != syncer.Seen && v.Sight != syncer.Gone:
			p.lines = append(p.lines, Line{w.path, WhatFailed, v.Why, w.entry.Size})
			continue
		case v.Sight == syncer.Seen && v.Entry.IsDir() && !w.entry.IsDir() && retained[w.path]:
			p.lines = append(p.lines, Line{w.path, WhatHeld, whyHolds, w.entry.Size})
			continue
		}
		step := syncer.NewStep(v.Observation, manifest.Node{Entry: w.entry, Revision: s.rev}, aside(v))
		p.steps = append(p.steps, step)
		if step.Op == syncer.PutFile {
			p.need = append(p.need, i)
		}
	}
	return p
}

// dropRetained leaves out the removal of directories that something stays in.
func dropRetained(steps []syncer.Step, retained map[manifest.Path]bool) []syncer.Step {
	out := steps[:0]
	for _, st := range steps {
		if !retained[st.Path] {
			out = append(out, st)
		}
	}
	return out
}

// aside says why what stands at a path is kept: no push has brought it.
func aside(v *syncer.Surveyed) string {
	switch {
	case v.Sight != syncer.Seen || v.Entry.Same(v.Was.Entry) || v.Entry.SameContent(v.Was.Entry):
		return ""
	case v.Was.Entry.Absent():
		return whyStood
	}
	return whyEdited
}

// shut tells why nothing can be done at a path: a directory above it cannot be listed.
func shut(p manifest.Path, closed map[manifest.Path]string) string {
	for dir := p.Dir(); dir != "" && len(closed) > 0; dir = dir.Dir() {
		if why := closed[dir]; why != "" {
			return why
		}
	}
	return ""
}

// lines says of each step what it does, for a dry run.
func (p plan) dry() []Line {
	out := make([]Line, 0, len(p.steps)+len(p.lines))
	for _, st := range p.steps {
		out = append(out, Line{st.Path, word(st), "", max(st.New.Entry.Size, st.Expect.Entry.Size)})
	}
	return append(out, p.lines...)
}

func word(st syncer.Step) string {
	switch {
	case st.New.Entry.Absent():
		return WhatDelete
	case st.Expect.Entry.Absent():
		return WhatAdd
	}
	return WhatChange
}
