package raftstore

import (
	"cmp"
	"slices"

	"github.com/gatesync/gatesync/cluster"
)

// Pusher is what a leader knows of a member that pushes, or may push, to a target.
type Pusher struct {
	ID    cluster.NodeID
	Alive bool // heard a moment ago, and able to push
	Dead  bool // silent for long
	// Failing: it is the pusher, and says that it cannot reach the target.
	Failing bool
	// Tried: it could not reach the target a while ago.
	Tried bool
	Load  int // targets that it pushes to
}

// NextPusher tells who is to push to a target, where that is to change: the
// present pusher while it lives and reaches the target, else whoever pushes to
// the fewest. Where nobody is left that has not been tried, a pusher that lives
// goes on trying: nothing is passed around in circles.
func NextPusher(t cluster.Target, members []Pusher) (cluster.NodeID, bool) {
	present, failing := false, false
	for _, m := range members {
		if m.ID == t.Pusher && !m.Dead {
			present, failing = true, m.Failing
		}
	}
	if present && !failing {
		return "", false
	}
	var may []Pusher
	for _, m := range members {
		if m.Alive && m.ID != t.Pusher && !(present && m.Tried) {
			may = append(may, m)
		}
	}
	if len(may) == 0 {
		return "", false
	}
	best := slices.MinFunc(may, func(a, b Pusher) int {
		return cmp.Or(cmp.Compare(tried(a), tried(b)), cmp.Compare(a.Load, b.Load), cmp.Compare(a.ID, b.ID))
	})
	return best.ID, true
}

func tried(p Pusher) int {
	if p.Tried {
		return 1
	}
	return 0
}
