package raftstore

import (
	"fmt"
	"testing"

	"github.com/gatesync/gatesync/cluster"
)

func TestNextPromotion(t *testing.T) {
	for _, tc := range []struct {
		voters, ready, lagging, wanted int
		want                           bool
	}{
		{voters: 1, ready: 0, want: false},
		{voters: 1, ready: 1, want: false}, // two voters tolerate nothing
		{voters: 1, ready: 1, lagging: 1, want: false},
		{voters: 1, ready: 2, want: true},
		{voters: 2, ready: 1, want: true}, // the second of a pair
		{voters: 3, ready: 1, want: false},
		{voters: 3, ready: 2, want: true},
		{voters: 4, ready: 1, want: true},
		{voters: 5, ready: 2, want: false}, // the default is 5
		{voters: 5, ready: 2, wanted: 7, want: true},
		{voters: 3, ready: 2, wanted: 3, want: false},
		{voters: 3, ready: 2, wanted: 4, want: false}, // as good as 3
		{voters: 1, ready: 2, wanted: 1, want: false},
		{voters: 2, ready: 0, lagging: 3, want: false},
	} {
		t.Run(fmt.Sprintf("%+v", tc), func(t *testing.T) {
			var members []cluster.Member
			add := func(n int, role cluster.Role, kind string) {
				for i := range n {
					members = append(members, cluster.Member{ID: cluster.NodeID(fmt.Sprint(kind, i)), Role: role, Joined: int64(10 - i)})
				}
			}
			add(tc.voters, cluster.Voter, "voter")
			add(tc.lagging, cluster.NonVoter, "lagging")
			add(tc.ready, cluster.NonVoter, "ready")
			add(1, "", "unknown to Raft")
			id, ok := NextPromotion(members, func(id cluster.NodeID) bool { return id[0] != 'l' }, tc.wanted)
			if ok != tc.want {
				t.Fatalf("promote %q: %v", id, ok)
			}
			if want := cluster.NodeID(fmt.Sprint("ready", tc.ready-1)); ok && id != want {
				t.Fatalf("promote %q, but %q joined first", id, want)
			}
		})
	}
}
