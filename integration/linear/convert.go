package linear

import (
	"maps"
	"slices"

	"github.com/gatesync/gatesync/manifest"
)

// ProposedOf is a machine's answer as the history has it.
func ProposedOf(r manifest.Result) Proposed {
	p := Proposed{Revision: uint64(r.Revision), Refused: map[string]uint64{}}
	for _, ref := range r.Refused {
		p.Refused[string(ref.Path)] = uint64(ref.Current)
	}
	return p
}

// ValueOf is what stands at a path as the history has it.
func ValueOf(n manifest.Node) Value {
	return Value{Revision: uint64(n.Revision), Digest: n.Entry.Digest.String()}
}

// CommitsOf takes a log over, whichever way round it comes, and leaves out
// revisions without a message: they are none of the work's.
func CommitsOf(log []manifest.Commit) []Commit {
	var out []Commit
	for _, c := range log {
		if c.Message == "" {
			continue
		}
		m := Commit{Revision: uint64(c.Revision), Tag: c.Message, Changes: map[string]string{}}
		for _, ch := range c.Changes {
			m.Changes[string(ch.Path)] = ""
			if !ch.New.Absent() {
				m.Changes[string(ch.Path)] = ch.New.Digest.String()
			}
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Commit) int { return int(a.Revision) - int(b.Revision) })
	return out
}

// Same tells whether two logs are one.
func Same(a, b []Commit) bool {
	return slices.EqualFunc(a, b, func(x, y Commit) bool {
		return x.Revision == y.Revision && x.Tag == y.Tag && maps.Equal(x.Changes, y.Changes)
	})
}
