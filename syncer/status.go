package syncer

import (
	"context"
	"fmt"
)

// unreadMost is how many directories that cannot be read are named one by one.
const unreadMost = 5

// Status is what a Syncer tells of itself.
type Status struct {
	Tree       string
	Path       string // of the root; "" while it was never opened
	Loop       LoopStatus
	Scan       ScanStatus
	Watched    int      // directories
	Overflows  uint64   // how often file events were lost
	Quarantine int      // displaced files that are not judged yet
	Place      Place    // where the tree lies
	Warnings   []string // what is weaker than it should be, and what to do
}

// Status asks the loop and everybody else.
func (s *Syncer) Status(ctx context.Context) (Status, error) {
	st := Status{Tree: s.cfg.Tree, Scan: s.scanner.status(), Quarantine: s.quarantine.len(), Overflows: s.watcher.overflows.Load()}
	st.Place, _ = s.placer.current()
	if n := s.watcher.current(); n != nil {
		st.Watched = n.len()
	}
	for _, why := range []string{s.watcher.trouble(), s.persister.trouble()} {
		if why != "" {
			st.Warnings = append(st.Warnings, why)
		}
	}
	for _, file := range s.setAside() {
		st.Warnings = append(st.Warnings, recordsLost(file))
	}
	if g, done, err := s.root.borrow(); err == nil {
		st.Path = g.fs.Path()
		if caps := g.fs.Capabilities(); !caps.Leases {
			st.Warnings = append(st.Warnings, "leases do not work on this file system: a file is taken once it has rested for a second")
		} else if !caps.Exchange {
			st.Warnings = append(st.Warnings, "names cannot be exchanged on this file system: an edit in the very moment of a change from elsewhere may be lost")
		}
		done()
	}
	var err error
	st.Loop, err = ask(ctx, s, (*Loop).Status)
	for i, t := range st.Loop.Unread {
		if i == unreadMost {
			st.Warnings = append(st.Warnings, fmt.Sprintf("and %d more directories", len(st.Loop.Unread)-i))
			break
		}
		st.Warnings = append(st.Warnings, fmt.Sprintf("directory %q cannot be read, and nothing that changes in it is seen: %s", t.Path, t.Why))
	}
	return st, err
}
