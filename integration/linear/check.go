package linear

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkWithin bounds porcupine's search. Versions leave it little to try.
const checkWithin = time.Minute

// NotLinearizableError says that no order of the operations explains the answers.
type NotLinearizableError struct {
	Paths   []string // of the group
	Picture string   // file with porcupine's visualization
}

func (e *NotLinearizableError) Error() string {
	return fmt.Sprintf("the history of %v is not linearizable: open %s in a browser", e.Paths, e.Picture)
}

// Check tells whether a history is linearizable. groups are those of the work,
// log is everything that was committed, oldest first, as the nodes agree on it
// now that all is quiet.
func Check(h *History, groups [][]string, log []Commit) error {
	ops := h.all()
	err := errors.Join(
		checkAcknowledged(ops, log),
		checkRealTime(ops),
		checkLocal(ops, log),
	)
	for g, paths := range groups {
		err = errors.Join(err, checkGroup(ops, g, paths, log))
	}
	return err
}

// checkAcknowledged holds what proposers were told against the log.
func checkAcknowledged(ops []operation, log []Commit) (err error) {
	tagged := byTag(log)
	for _, op := range ops {
		if op.propose == nil {
			continue
		}
		c, there := tagged[op.propose.Tag]
		switch {
		case op.end == answered && op.proposed.Revision != c.Revision:
			err = errors.Join(err, fmt.Errorf("%s was answered with revision %d, the log has it at %d", op.propose.Tag, op.proposed.Revision, c.Revision))
		case op.end == nothing && there:
			err = errors.Join(err, fmt.Errorf("%s was said to be surely not committed, the log has it at %d", op.propose.Tag, c.Revision))
		}
	}
	if len(tagged) != len(log) {
		err = errors.Join(err, fmt.Errorf("%d revisions of %d proposals: one was applied twice", len(log), len(tagged)))
	}
	return err
}

func byTag(log []Commit) map[string]Commit {
	m := make(map[string]Commit, len(log))
	for _, c := range log {
		m[c.Tag] = c
	}
	return m
}

// checkRealTime: over all groups, nobody hears of a revision older than one
// that somebody had been told of before.
func checkRealTime(ops []operation) error {
	ended := slices.Clone(ops)
	slices.SortFunc(ended, func(a, b operation) int { return cmp.Compare(a.ret, b.ret) })
	begun := slices.Clone(ops)
	slices.SortFunc(begun, func(a, b operation) int { return cmp.Compare(a.call, b.call) })
	var told uint64
	for next := 0; len(begun) > 0; begun = begun[1:] {
		op := begun[0]
		for ; next < len(ended) && ended[next].ret < op.call; next++ {
			if rev, ok := heard(ended[next]); ok {
				told = max(told, rev)
			}
		}
		if rev, ok := heard(op); ok && !op.local && (rev < told || op.propose != nil && rev == told) {
			return fmt.Errorf("client %d heard of revision %d in a call that began when revision %d was known", op.client, rev, told)
		}
	}
	return nil
}

// heard is the revision that an operation told its client.
func heard(op operation) (uint64, bool) {
	switch {
	case op.read != nil:
		return op.found.Revision, true
	case op.end == answered && op.proposed.Revision > 0:
		return op.proposed.Revision, true
	}
	return 0, false
}

// checkLocal: what a node says of itself may be old, and is what stood at the
// revision that it names.
func checkLocal(ops []operation, log []Commit) error {
	reads := slices.DeleteFunc(slices.Clone(ops), func(op operation) bool { return !op.local })
	slices.SortFunc(reads, func(a, b operation) int { return cmp.Compare(a.found.Revision, b.found.Revision) })
	state := map[string]Value{}
	next := 0
	for _, op := range reads {
		for ; next < len(log) && log[next].Revision <= op.found.Revision; next++ {
			for path, digest := range log[next].Changes {
				if state[path] = (Value{log[next].Revision, digest}); digest == "" {
					delete(state, path)
				}
			}
		}
		for _, p := range op.read.Paths {
			if op.found.Values[p] != state[p] {
				return fmt.Errorf("a node read %s as %s at revision %d, the log says %s", p, op.found.Values[p], op.found.Revision, state[p])
			}
		}
	}
	return nil
}

// checkGroup runs porcupine over the operations of one group. A proposal whose
// outcome nobody heard ends never; if the log has it, it took effect at some
// time after its call, else it took none.
func checkGroup(ops []operation, group int, paths []string, log []Commit) error {
	tagged := byTag(log)
	var history []porcupine.Operation
	for _, op := range ops {
		if op.group != group || op.local {
			continue
		}
		o := porcupine.Operation{ClientId: op.client, Input: input{paths, op.propose, op.read}, Call: int64(op.call), Return: int64(op.ret)}
		switch {
		case op.read != nil:
			o.Output = op.found
		case op.end == answered:
			o.Output = op.proposed
		case op.end == nothing:
			continue
		default:
			c, there := tagged[op.propose.Tag]
			if !there {
				continue
			}
			o.Output, o.Return = recovered{c.Revision, maps.Clone(c.Changes)}, math.MaxInt64
		}
		history = append(history, o)
	}
	result, info := porcupine.CheckOperationsVerbose(model(), history, checkWithin)
	switch result {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("whether the history of %v is linearizable was not found out within %v", paths, checkWithin)
	}
	picture, err := draw(info)
	return errors.Join(&NotLinearizableError{Paths: paths, Picture: picture}, err)
}

func draw(info porcupine.LinearizationInfo) (path string, err error) {
	f, err := os.CreateTemp("", "gatesync-linear-*.html")
	if err != nil {
		return "", err
	}
	err = porcupine.Visualize(model(), info, f)
	return f.Name(), errors.Join(err, f.Close())
}
