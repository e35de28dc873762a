package raftstore

import (
	"cmp"
	"slices"

	"github.com/gatesync/gatesync/cluster"
)

// DefaultVoters is how many voters a cluster has where nobody says otherwise.
const DefaultVoters = 5

// NextPromotion says which non-voter becomes a voter next; false: none now.
//
// The number of voters is to be odd, and at most wanted (0: DefaultVoters): an
// even number tolerates no more failures than the odd one below it. So from an
// odd number it begins only where two are ready, and from an even one it goes
// on with a single one. Who joined first comes first.
func NextPromotion(members []cluster.Member, ready func(cluster.NodeID) bool, wanted int) (cluster.NodeID, bool) {
	if wanted <= 0 {
		wanted = DefaultVoters
	}
	wanted -= 1 - wanted%2
	voters := 0
	var candidates []cluster.Member
	for _, m := range members {
		switch {
		case m.Role == cluster.Voter:
			voters++
		case m.Role == cluster.NonVoter && ready(m.ID):
			candidates = append(candidates, m)
		}
	}
	need := 1 + voters%2 // to reach the next odd number
	if voters+need > wanted || len(candidates) < need {
		return "", false
	}
	first := slices.MinFunc(candidates, func(a, b cluster.Member) int {
		return cmp.Or(cmp.Compare(a.Joined, b.Joined), cmp.Compare(a.ID, b.ID))
	})
	return first.ID, true
}
