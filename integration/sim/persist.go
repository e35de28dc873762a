package sim

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// job is one thing to be persisted.
type job struct {
	updates  []syncer.Update
	note     *syncer.Remember
	followed manifest.Revision
	begun    *manifest.Revision
	looked   bool
	joined   bool
	opened   bool
	done     func()
}

// persist queues a job. What is queued together is written together, after
// what was queued before; a crash loses all of it.
func (n *node) persist(j job) {
	n.jobs = append(n.jobs, j)
	if len(n.jobs) == 1 {
		n.later(3*time.Millisecond, n.drain)
	}
}

// begin has it persisted what a joiner was compared with first, before anything
// goes out from it or into its tree.
func (n *node) begin(from *manifest.Revision, then func()) {
	if from == nil || n.saved.begun || n.saved.joined {
		then()
		return
	}
	n.persist(job{begun: from, done: then})
}

// drain flushes what the jobs' updates say was seen in the tree, and then
// writes. An update whose flush fails is left out.
func (n *node) drain() {
	if n.mishap() {
		return
	}
	jobs := n.jobs
	n.jobs = nil
	for _, j := range jobs {
		for _, u := range j.updates {
			if u.Flush && !n.rooted() {
				continue
			}
			if u.Flush {
				n.disk.flush()
				if i := n.disk.at[u.Path]; i != nil {
					i.sync()
				}
			}
			n.saved.update(u)
		}
		switch {
		case j.note == nil:
		case j.note.Note == nil:
			delete(n.saved.notes, j.note.Path)
		default:
			n.saved.notes[j.note.Path] = *j.note.Note
		}
		n.saved.followed = max(n.saved.followed, j.followed)
		if j.begun != nil && !n.saved.joined {
			n.saved.begun, n.saved.followed = true, max(n.saved.followed, *j.begun)
		}
		n.boot = n.boot || j.looked
		n.saved.joined = n.saved.joined || j.joined
		n.saved.closed = n.saved.closed && !j.opened
	}
	for _, j := range jobs {
		if j.done != nil {
			j.done()
		}
	}
}

func (s *saved) update(u syncer.Update) {
	if u.Ancestor == nil {
		delete(s.ancestors, u.Path)
	} else {
		s.ancestors[u.Path] = *u.Ancestor
	}
}
