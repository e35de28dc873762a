package linear

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// maxGroup bounds the paths of one group.
const maxGroup = 4

// tree is the state of one group: what a single copy of it would hold.
type tree struct {
	values [maxGroup]Value
	latest uint64 // the newest revision that anybody has heard of: the next is newer
}

// input is an operation's question, with the group that it is about.
type input struct {
	paths   []string // of the group
	propose *Propose
	read    *Read
}

// recovered is the answer to a proposal whose outcome its client never heard,
// and that stands in the log.
type recovered struct {
	revision uint64
	changed  map[string]string
}

func (in input) at(path string) int { return slices.Index(in.paths, path) }

// model is the sequential specification of a group.
func model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return tree{} },
		Step: func(state, in, out any) (bool, any) {
			t, q := state.(tree), in.(input)
			switch out := out.(type) {
			case Found:
				return t.read(q, out)
			case Proposed:
				return t.propose(q, out.Revision, func(path string, should verdict, now Value) bool {
					current, refused := out.Refused[path]
					return refused == (should == refuse) && (!refused || current == now.Revision)
				})
			case recovered:
				return t.propose(q, out.revision, func(path string, should verdict, _ Value) bool {
					digest, changed := out.changed[path]
					return changed == (should == change) && (!changed || digest == q.digest(path))
				})
			}
			panic(fmt.Sprintf("an answer of type %T", out))
		},
		DescribeOperation: describe,
		DescribeState:     func(state any) string { return state.(tree).String() },
	}
}

func (in input) digest(path string) string {
	for _, c := range in.propose.Changes {
		if c.Path == path {
			return c.Digest
		}
	}
	return ""
}

func (t tree) read(in input, out Found) (bool, tree) {
	if out.Revision < t.latest {
		return false, t
	}
	for _, p := range in.read.Paths {
		if t.values[in.at(p)] != out.Values[p] {
			return false, t
		}
	}
	t.latest = out.Revision
	return true, t
}

// verdict is what becomes of one change.
type verdict int

const (
	inForce verdict = iota // the path is that already
	change
	refuse
)

// propose applies a changeset by compare-and-set; told tells whether the answer
// says of a path what it should.
func (t tree) propose(in input, revision uint64, told func(path string, should verdict, now Value) bool) (bool, tree) {
	verdicts := make([]verdict, len(in.propose.Changes))
	anyRefused := false
	for i, c := range in.propose.Changes {
		now := t.values[in.at(c.Path)]
		switch {
		case now.Digest == c.Digest:
			verdicts[i] = inForce
		case now.Revision == c.Expect:
			verdicts[i] = change
		default:
			verdicts[i], anyRefused = refuse, true
		}
	}
	next, changed := t, false
	for i, c := range in.propose.Changes {
		if in.propose.Atomic && anyRefused && verdicts[i] == change {
			verdicts[i] = refuse
		}
		at := in.at(c.Path)
		if !told(c.Path, verdicts[i], t.values[at]) {
			return false, t
		}
		if verdicts[i] == change {
			changed = true
			next.values[at] = Value{Revision: revision, Digest: c.Digest}
			if c.Digest == "" {
				next.values[at] = Value{}
			}
		}
	}
	if !changed {
		return revision == 0, t
	}
	next.latest = revision
	return revision > t.latest, next
}

func (v Value) String() string {
	if v == (Value{}) {
		return "absent"
	}
	return fmt.Sprintf("%.6s@%d", v.Digest, v.Revision)
}

func (t tree) String() string {
	var parts []string
	for _, v := range t.values {
		parts = append(parts, v.String())
	}
	return fmt.Sprintf("[%s] at %d", strings.Join(parts, " "), t.latest)
}

func describe(in, out any) string {
	q := in.(input)
	var b strings.Builder
	if q.read != nil {
		fmt.Fprintf(&b, "read %s", strings.Join(q.read.Paths, " "))
	} else {
		fmt.Fprintf(&b, "%s", q.propose.Tag)
		if q.propose.Atomic {
			b.WriteString(" atomic")
		}
		for _, c := range q.propose.Changes {
			fmt.Fprintf(&b, " %s:%d→%.6s", c.Path, c.Expect, c.Digest)
		}
	}
	b.WriteString(" ⇒ ")
	switch out := out.(type) {
	case Found:
		fmt.Fprintf(&b, "at %d", out.Revision)
		for _, p := range slices.Sorted(maps.Keys(out.Values)) {
			fmt.Fprintf(&b, " %s=%s", p, out.Values[p])
		}
	case Proposed:
		fmt.Fprintf(&b, "revision %d", out.Revision)
		for _, p := range slices.Sorted(maps.Keys(out.Refused)) {
			fmt.Fprintf(&b, " %s refused at %d", p, out.Refused[p])
		}
	case recovered:
		fmt.Fprintf(&b, "nobody heard, revision %d in the log", out.revision)
	}
	return b.String()
}
