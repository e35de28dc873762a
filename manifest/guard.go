package manifest

// DeleteLimit bounds how much of a tree may be deleted within the sliding
// window before a person is asked.
type DeleteLimit struct {
	Count   int // more than so many entries, and …
	Percent int // … more than so many percent of the tree
}

// DefaultDeleteLimit is the guard.max_delete that a new node gets.
func DefaultDeleteLimit() DeleteLimit { return DeleteLimit{Count: 20, Percent: 30} }

// Deletions describes what a node is about to delete, net of moves. Only files
// and symlinks count; a directory is nothing by itself.
type Deletions struct {
	Pending int // about to be proposed, on their way, and those already held
	Recent  int // committed from this node within the window
	Present int // what the pending ones leave, and these
}

// MassDeletion tells whether d needs a person's word: too much at once, or a
// tree left empty, whatever its size.
func MassDeletion(l DeleteLimit, d Deletions) bool {
	if d.Pending <= 0 {
		return false
	}
	if d.Present-d.Pending <= 0 {
		return true
	}
	gone, before := d.Pending+d.Recent, d.Present+d.Recent
	return gone > l.Count && gone*100 > before*l.Percent
}
