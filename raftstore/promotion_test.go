package raftstore

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gatesync/gatesync/cluster"
)

// standings reads a cluster from words: a letter for what a member is, its
// number for who joined when. V a living voter, D one that is dead for long, S one that
// has just fallen silent; r a ready non-voter, l a lagging one, d a dead one;
// + and - after it: an operator wants it to vote, or not to.
func standings(words string) (out []Standing) {
	for i, w := range strings.Fields(words) {
		m := Standing{Member: cluster.Member{ID: cluster.NodeID(w[:2]), Role: cluster.NonVoter, Joined: int64(i)}, Alive: true}
		switch w[0] {
		case 'V':
			m.Role, m.Ready = cluster.Voter, true
		case 'D':
			m.Role, m.Alive, m.Dead = cluster.Voter, false, time.Hour
		case 'S':
			m.Role, m.Alive, m.Dead = cluster.Voter, false, time.Second
		case 'r':
			m.Ready = true
		case 'd':
			m.Alive, m.Dead = false, time.Hour
		}
		switch w[2:] {
		case "+":
			m.Wish = cluster.Voter
		case "-":
			m.Wish = cluster.NonVoter
		}
		out = append(out, m)
	}
	return out
}

func TestNextStep(t *testing.T) {
	for _, tc := range []struct {
		members string
		wanted  int
		want    string
	}{
		// Growth, in pairs.
		{"V1", 0, ""},
		{"V1 r2", 0, ""}, // two voters tolerate nothing
		{"V1 r2 l3", 0, ""},
		{"V1 r2 r3", 0, "+r2"},
		{"V1 V2 r3", 0, "+r3"}, // the second of a pair
		{"V1 V2 l3 l4", 0, ""},
		{"V1 V2 V3 r4", 0, ""},
		{"V1 V2 V3 r4 r5", 0, "+r4"},
		{"V1 V2 V3 V4 r5", 0, "+r5"},
		{"V1 V2 V3 V4 V5 r6 r7", 0, ""},
		{"V1 V2 V3 V4 V5 r6 r7", 7, "+r6"},
		{"V1 V2 V3 r4 r5", 3, ""},
		{"V1 V2 V3 r4 r5", 4, ""}, // as good as 3
		{"V1 r2 r3", 1, ""},
		// A dead voter is replaced: first the new one, then the dead one.
		{"V1 V2 D3", 0, ""}, // two would tolerate as little as these three
		{"V1 V2 S3 r4", 0, ""},
		{"V1 V2 D3 l4", 0, ""},
		{"V1 V2 D3 r4", 0, "+r4"},
		{"V1 V2 D3 V4", 0, "-D3"},
		{"V1 V2 D3 V4 r5", 0, "-D3"},
		{"V1 V2 D3 r4", 3, "+r4"},
		{"V1 V2 V3 D4 D5 r6", 0, "+r6"},
		{"V1 V2 V3 D4 D5 V6", 0, "-D4"},
		{"V1 V2 V3 D5 V6", 0, ""}, // none to replace it, and one alone is kept
		// Dead ones without a replacement go in pairs.
		{"V1 V2 V3 V4 D5", 0, ""},
		{"V1 V2 V3 D4 D5", 0, "-D4"},
		{"V1 V2 V3 D5", 0, "-D5"},
		{"V1 V2 V3 D4 S5", 0, ""},
		{"V1 V2 V3 V4 D5 D6 D7", 7, "-D5"},
		{"V1 V2 V3 V4 D6 D7", 7, "-D6"},
		{"V1 V2 V3 V4 D7", 7, ""},
		// Without a quorum nothing can be done.
		{"V1 D2 D3 r4 r5", 0, ""},
		{"V1 D2 r3", 0, ""},
		{"V1 V2 D3 D4 r5", 0, ""},
		// What an operator chose.
		{"V1 r2+", 0, "+r2"},
		{"V1 l2+", 0, ""},
		{"V1 V2 V3 V4 V5 r6+", 0, "+r6"},
		{"V1 V2 V3 V4 V5 V6 V7 r8+", 0, ""}, // Raft has at most seven
		{"V1 V2- V3", 0, "-V2"},
		{"V1 V2- D3", 0, ""}, // it would leave one of two
		{"V1-", 0, ""},
		{"V1 r2- r3-", 0, ""},
		{"V1 V2 D3+ r4", 0, ""}, // it stays until an operator says otherwise
		{"V1 V2 D3-", 0, "-D3"},
		{"V1 V2 V3 r4- r5", 0, ""},
	} {
		t.Run(fmt.Sprintf("%s of %d", tc.members, tc.wanted), func(t *testing.T) {
			s, ok := NextStep(standings(tc.members), Policy{Wanted: tc.wanted, Reap: time.Minute})
			got := ""
			if ok {
				got = map[cluster.Role]string{cluster.Voter: "+", cluster.NonVoter: "-"}[s.Role] + string(s.ID)
			}
			if got != tc.want {
				t.Fatalf("%q, want %q", got, tc.want)
			}
		})
	}
	if s, ok := NextStep(standings("V1 V2 V3 D4 D5"), Policy{}); ok {
		t.Errorf("reaps %+v where that is switched off", s)
	}
}

// Whatever stands and falls: the living voters stay a majority, no step of the
// cluster's own makes it tolerate less, and it comes to an end.
func TestPromise_Available_NextStepNeverCostsTheQuorum(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var members []Standing
		for i := range rapid.IntRange(1, 10).Draw(rt, "members") {
			w := rapid.SampledFrom([]string{"V", "V", "V", "D", "S", "r", "l", "d"}).Draw(rt, "kind")
			wish := rapid.SampledFrom([]string{"", "", "", "+", "-"}).Draw(rt, "wish")
			m := standings(w + string(rune('a'+i)) + wish)[0]
			m.Joined = rapid.Int64Range(0, 3).Draw(rt, "joined")
			members = append(members, m)
		}
		p := Policy{Wanted: rapid.IntRange(0, 7).Draw(rt, "wanted"), Reap: time.Minute}
		for steps := 0; ; steps++ {
			before := tolerance(members)
			s, ok := NextStep(members, p)
			if !ok {
				return
			}
			if steps > 30 {
				rt.Fatalf("no end: %+v of %+v", s, members)
			}
			if before < 0 {
				rt.Fatalf("%+v without a quorum in %+v", s, members)
			}
			i := slices.IndexFunc(members, func(m Standing) bool { return m.ID == s.ID })
			m := &members[i]
			if m.Role == s.Role {
				rt.Fatalf("%+v changes nothing in %+v", s, members)
			}
			if s.Role == cluster.Voter && !m.Ready || m.Wish != "" && m.Wish != s.Role {
				rt.Fatalf("%+v for %+v", s, *m)
			}
			m.Role = s.Role
			if after := tolerance(members); after < 0 || m.Wish == "" && after < before {
				rt.Fatalf("%+v: %d more may fail after it, %d before, in %+v", s, after, before, members)
			}
		}
	})
}

// tolerance is how many more voters may fail before nothing can be committed;
// negative where that is so already.
func tolerance(members []Standing) int {
	v := count(members)
	return v.alive - Majority(v.all)
}
