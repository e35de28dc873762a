package standing

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Tree is what stands in a tree: each path with its kind, its mode, and a digest
// of its bytes or its target, in any form that is the same for the same.
type Tree map[string]string

// namedMost is how many paths a difference names.
const namedMost = 12

// Differs tells how got differs from want, the first few paths by name; nil: not
// at all.
func (want Tree) Differs(got Tree) error {
	var lines []string
	for _, p := range slices.Sorted(maps.Keys(want)) {
		switch g, ok := got[p]; {
		case !ok:
			lines = append(lines, fmt.Sprintf("missing %q (%s)", p, want[p]))
		case g != want[p]:
			lines = append(lines, fmt.Sprintf("%q is %s, want %s", p, g, want[p]))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[p]; !ok {
			lines = append(lines, fmt.Sprintf("extra %q (%s)", p, got[p]))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	n := len(lines)
	if n > namedMost {
		lines = append(lines[:namedMost], "…")
	}
	return fmt.Errorf("%d paths differ:\n  %s", n, strings.Join(lines, "\n  "))
}
