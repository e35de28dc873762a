package raftstore

import (
	"cmp"
	"slices"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

const (
	// DefaultVoters is how many voters a cluster has where nobody says otherwise.
	DefaultVoters = 5
	// MaxVoters is how many Raft shall have at most, an operator's among them.
	MaxVoters = 7
)

// Standing is what the leader knows of one member.
type Standing struct {
	cluster.Member
	Alive bool          // it answers
	Ready bool          // alive, with the log and the content: it may vote
	Dead  time.Duration // for how long it has been silent under this leader; 0 while it is alive
}

// Policy is what the settings say about voters.
type Policy struct {
	Wanted int           // voters; 0: DefaultVoters
	Reap   time.Duration // a voter that is dead for this long gives its vote up; 0: never
}

// Step is one change of who votes.
type Step struct {
	ID   cluster.NodeID
	Role cluster.Role // that it gets
	Why  string
}

// NextStep says which member's role in Raft changes next; false: none now. It
// is asked again after each step, so that a return or another death in the
// middle of anything is seen.
//
// Of its own accord it never lowers the number of voters that may still fail,
// and it proposes nothing after which the living voters would be no majority, or
// that the present ones could not commit:
//
//   - What an operator chose is done first, and nothing is decided against it.
//   - A dead voter is replaced by a ready non-voter: the new one is promoted,
//     then the dead one demoted. In the other order one failure in between
//     would cost the quorum even if the dead one came back.
//   - Without a replacement dead voters are demoted in pairs (or one, from an
//     even number): only an odd number below makes the majority smaller. So of
//     three voters with one dead all three stay: two would tolerate as little, and
//     could not use the dead one when it returns.
//   - Otherwise the number of voters grows, in pairs, up to the wanted one.
//
// Who is demoted stays a member, and is promoted again like any other.
func NextStep(members []Standing, p Policy) (Step, bool) {
	v := count(members)
	if v.alive < Majority(v.all) {
		return Step{}, false // nothing could be committed
	}
	if s, ok := wished(members, v); ok {
		return s, true
	}
	wanted := cmp.Or(p.Wanted, DefaultVoters)
	wanted -= 1 - wanted%2
	dead := pick(members, func(m Standing) bool {
		return m.Role == cluster.Voter && m.Wish != cluster.Voter && p.Reap > 0 && m.Dead >= p.Reap
	})
	spare := pick(members, func(m Standing) bool {
		return m.Role == cluster.NonVoter && m.Wish == "" && m.Ready
	})
	odd := v.all%2 == 1
	switch {
	case len(dead) > 0 && (!odd || len(dead) > 1 && (len(spare) == 0 || v.all > wanted)):
		return Step{dead[0].ID, cluster.NonVoter, "it does not answer, and the others tolerate more failures without it"}, true
	case len(dead) > 0 && len(spare) > 0 && v.all <= wanted:
		return Step{spare[0].ID, cluster.Voter, "it replaces a voter that does not answer"}, true
	case len(dead) == 0 && v.all+1+v.all%2 <= wanted && len(spare) >= 1+v.all%2:
		return Step{spare[0].ID, cluster.Voter, "it has the log and the content"}, true
	}
	return Step{}, false
}

// wished does what an operator chose, where that is possible now.
func wished(members []Standing, v voters) (Step, bool) {
	for _, m := range members {
		switch {
		case m.Wish == cluster.Voter && m.Role == cluster.NonVoter && m.Ready && v.all < MaxVoters:
			return Step{m.ID, cluster.Voter, "an operator promoted it"}, true
		case m.Wish == cluster.NonVoter && m.Role == cluster.Voter && v.without(m).safe():
			return Step{m.ID, cluster.NonVoter, "an operator demoted it"}, true
		}
	}
	return Step{}, false
}

// pick lists the members that are meant: who joined first comes first.
func pick(members []Standing, meant func(Standing) bool) []Standing {
	out := slices.DeleteFunc(slices.Clone(members), func(m Standing) bool { return !meant(m) })
	slices.SortFunc(out, func(a, b Standing) int {
		return cmp.Or(cmp.Compare(a.Joined, b.Joined), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// voters counts them.
type voters struct{ all, alive int }

func count(members []Standing) (v voters) {
	for _, m := range members {
		if m.Role == cluster.Voter {
			v.all++
			if m.Alive {
				v.alive++
			}
		}
	}
	return v
}

func (v voters) without(m Standing) voters {
	v.all--
	if m.Alive {
		v.alive--
	}
	return v
}

// safe tells whether something can be committed.
func (v voters) safe() bool { return v.all > 0 && v.alive >= Majority(v.all) }

// Majority is how many of so many voters have to agree.
func Majority(voters int) int { return voters/2 + 1 }
