package syncer

import (
	"context"
	"fmt"

	"github.com/gatesync/gatesync/manifest"
)

// Drift is one path on which the disk is not what is committed.
type Drift struct {
	Path manifest.Path
	// What: "missing", "extra", "content", "mode", "kind", "busy",
	// "unreadable", or "corrupt": the content changed although stat says that
	// nobody wrote it.
	What string
	Why  string // for people
	Size int64  // as committed
}

// Verified counts what Verify has read.
type Verified struct {
	Revision manifest.Revision
	Entries  int
	Bytes    int64
	Drifts   int
}

// Verify reads every file, whatever the stamps say, and reports where the disk
// is not what is committed. It changes nothing; edits that are on their way
// show up as drift too, so Settle first.
func (s *Syncer) Verify(ctx context.Context, fn func(Drift) error) (Verified, error) {
	status, anc, err := s.snapshot(ctx)
	if err != nil {
		return Verified{}, err
	}
	view, ok := s.cfg.Log.View(s.cfg.Tree)
	if !ok {
		return Verified{}, fmt.Errorf("the log does not know tree %q yet; wait for the node to catch up", s.cfg.Tree)
	}
	done := Verified{Revision: view.Revision}
	err = s.survey(ctx, anc, view, true, func(v surveyed) error {
		done.Entries++
		done.Bytes += v.obs.Entry.Size
		what := v.drift()
		if what == "" {
			return nil
		}
		done.Drifts++
		why := v.obs.Why
		if n, held := status.Notes[v.path]; held && why == "" && n.Entry.Same(v.obs.Entry) {
			why = "held: " + n.Why
		}
		return fn(Drift{Path: v.path, What: what, Why: why, Size: v.node.Entry.Size})
	})
	return done, err
}

func (v surveyed) drift() string {
	disk, want := v.obs.Entry, v.node.Entry
	switch v.obs.Sight {
	case Busy:
		return "busy"
	case Unreadable, Unfit:
		return "unreadable"
	case Gone:
		if want.Absent() {
			return ""
		}
		return "missing"
	}
	switch {
	case disk.Same(want):
		return ""
	case want.Absent():
		return "extra"
	case disk.Kind != want.Kind:
		return "kind"
	case disk.SameContent(want):
		return "mode"
	case v.anc.Entry.Same(want) && v.obs.Stamp == v.anc.Stamp:
		return "corrupt"
	}
	return "content"
}
