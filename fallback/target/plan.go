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
	d := &deciding{state: s, at: make(map[manifest.Path]*syncer.Surveyed, len(s.disk)), retained: map[manifest.Path]bool{}, closed: map[manifest.Path]string{}}
	d.look()
	d.remove(d.brake(d.leaving()))
	for i, w := range s.wants {
		d.put(i, w)
	}
	return d.plan
}

// deciding is a plan on its way.
type deciding struct {
	state
	plan     plan
	at       map[manifest.Path]*syncer.Surveyed // what stands there
	retained map[manifest.Path]bool             // directories that something stays in
	closed   map[manifest.Path]string           // directories that cannot be listed, and why
	files    int                                // that stand there, and symlinks
}

// retain notes that something stays at a path.
func (d *deciding) retain(path manifest.Path) {
	for dir := path.Dir(); dir != "" && !d.retained[dir]; dir = dir.Dir() {
		d.retained[dir] = true
	}
}

func (d *deciding) leave(v *syncer.Surveyed, why string) {
	d.plan.lines = append(d.plan.lines, Line{v.Path, WhatHeld, why, v.Entry.Size})
	d.retain(v.Path)
}

// look takes in what stands there.
func (d *deciding) look() {
	for i := range d.disk {
		v := &d.disk[i]
		d.at[v.Path] = v
		switch {
		case v.Sight == syncer.Seen && v.Entry.IsDir() && v.Why != "":
			d.closed[v.Path] = v.Why
			d.retain(v.Path)
			d.retained[v.Path] = true
		case v.Sight == syncer.Seen && !v.Entry.IsDir():
			d.files++
		case v.Sight != syncer.Seen && v.Sight != syncer.Gone:
			d.retain(v.Path)
		}
	}
}

// leaving is what may go. Files that no push has brought stay, but for
// --delete=yes; whether a directory goes is decided by what is in it.
func (d *deciding) leaving() (list []*syncer.Surveyed) {
	for i := range d.disk {
		v := &d.disk[i]
		switch {
		case !d.gone[v.Path] || v.Sight == syncer.Gone:
		case d.policy == DeleteNo:
			d.retain(v.Path)
		case !v.Entry.IsDir() && d.unknown(v):
			d.leave(v, whyUnknown)
		default:
			list = append(list, v)
		}
	}
	return list
}

// unknown tells that what stands there has to be held: no push has brought it.
func (d *deciding) unknown(v *syncer.Surveyed) bool {
	return d.policy == DeleteHeld && !v.Entry.Same(v.Was.Entry)
}

// brake holds all that would go where that is too much at once. What goes and
// comes elsewhere was moved, and does not count.
func (d *deciding) brake(leaving []*syncer.Surveyed) []*syncer.Surveyed {
	if d.policy != DeleteHeld || d.meant {
		return leaving
	}
	present, fresh := d.files, map[manifest.Digest]int{}
	for _, w := range d.wants {
		if v := d.at[w.path]; w.entry.HasContent() && (v == nil || v.Sight == syncer.Gone) {
			present++
			fresh[w.entry.Digest]++
		}
	}
	pending := 0
	for _, v := range leaving {
		switch {
		case v.Entry.IsDir():
		case fresh[v.Entry.Digest] > 0:
			fresh[v.Entry.Digest]--
		default:
			pending++
		}
	}
	if !manifest.MassDeletion(d.limit, manifest.Deletions{Pending: pending, Recent: d.recent, Present: present}) {
		return leaving
	}
	for _, v := range leaving {
		if v.Entry.IsDir() {
			d.retain(v.Path)
		} else {
			d.leave(v, whyMass)
		}
	}
	return nil
}

// remove makes the steps of what goes, directories only where nothing stays in them.
func (d *deciding) remove(leaving []*syncer.Surveyed) {
	for _, v := range leaving {
		switch {
		case d.retained[v.Path]:
		case v.Entry.IsDir() && d.unknown(v):
			d.leave(v, whyUnknown) // an empty one: what is in others is held, and holds them
			d.retained[v.Path] = true
		default:
			d.plan.steps = append(d.plan.steps, syncer.NewStep(v.Observation, manifest.Node{Revision: d.rev}, aside(v)))
			if !v.Entry.IsDir() {
				d.plan.deletes++
			}
		}
	}
	// A directory above an unknown one that is held above stays as well.
	d.plan.steps = dropRetained(d.plan.steps, d.retained)
}

// put makes the step that brings a want.
func (d *deciding) put(i int, w want) {
	v := d.at[w.path]
	if v == nil {
		v = &syncer.Surveyed{Observation: syncer.Observation{Path: w.path, Sight: syncer.Gone}}
	}
	not := func(what, why string) { d.plan.lines = append(d.plan.lines, Line{w.path, what, why, w.entry.Size}) }
	why := shut(w.path, d.closed)
	switch {
	case why != "":
		not(WhatFailed, "its directory cannot be listed: "+why)
	case v.Sight != syncer.Seen && v.Sight != syncer.Gone:
		not(WhatFailed, v.Why)
	case v.Sight == syncer.Seen && v.Entry.IsDir() && !w.entry.IsDir() && d.retained[w.path]:
		not(WhatHeld, whyHolds)
	default:
		step := syncer.NewStep(v.Observation, manifest.Node{Entry: w.entry, Revision: d.rev}, aside(v))
		d.plan.steps = append(d.plan.steps, step)
		if step.Op == syncer.PutFile {
			d.plan.need = append(d.plan.need, i)
		}
	}
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
