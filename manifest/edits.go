package manifest

import "fmt"

// Edits says what becomes of what is edited in a tree by whoever works there: the
// direction in which the tree is kept the same. It is one node's own word on one
// tree, and beside Reconcile the second half of the decision on a path: of a
// verdict that the disk's entry is to be offered it makes another one.
type Edits uint8

const (
	// EditsOffered: they are proposed (`write: any`).
	EditsOffered Edits = iota
	// EditsReported: they are shown and stand, until the path's next revision or
	// a person ends it (`write: never`, `edits: report`).
	EditsReported
	// EditsRepaired: what is committed is put back at once, and what was edited is
	// kept aside (`write: never`, `edits: repair`).
	EditsRepaired
)

// ParseEdits reads what the settings say: write ("" or "any", "never") and edits
// ("" or "repair", "report").
func ParseEdits(write, edits string) (Edits, error) {
	switch {
	case write == "" || write == "any":
		return EditsOffered, nil
	case write != "never":
		return 0, fmt.Errorf("write: %q is neither any nor never", write)
	case edits == "" || edits == "repair":
		return EditsRepaired, nil
	case edits == "report":
		return EditsReported, nil
	}
	return 0, fmt.Errorf("edits: %q is neither repair nor report", edits)
}

// Of makes of a verdict of Reconcile what is to be done where edits are not
// simply offered.
func (e Edits) Of(v Verdict) Verdict {
	switch {
	case v != Offer || e == EditsOffered:
		return v
	case e == EditsReported:
		return Stand
	}
	return Collide
}

func (e Edits) String() string {
	return [...]string{"offered", "reported", "repaired"}[e]
}
