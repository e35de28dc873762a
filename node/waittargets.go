package node

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// waitTargets waits until each target surely has a revision. A target that is off
// is waited for like any other one: who asks for targets means them. Those that
// have it not when ctx ends are late, with what is known of why.
func (s *localService) waitTargets(ctx context.Context, rev manifest.Revision, res *pb.WaitResponse) {
	const look = 100 * time.Millisecond // what is known of them comes with their pushers' hellos
	for {
		var have, late, why []string
		for _, t := range s.targets() {
			if t.Revision >= uint64(rev) {
				have = append(have, t.Name)
				continue
			}
			late = append(late, t.Name)
			why = append(why, fmt.Sprintf("target %s is %s: %s", t.Name, t.State, cmp.Or(t.Error, "`gatesync targets list` tells how it goes")))
		}
		if len(late) > 0 && wait(ctx, look) == nil {
			continue
		}
		res.Targets, res.LateTargets = have, late
		res.Why = append(res.Why, why...)
		return
	}
}
