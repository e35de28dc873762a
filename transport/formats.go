package transport

import "fmt"

// Formats says which formats of the log this node understands. Package
// raftstore knows what they mean; here they only keep nodes apart.
type Formats struct {
	Knows    uint32        // the newest; 0: whoever calls does not care
	Active   func() uint32 // the cluster's, as known here
	Outdated func(error)   // told when another member says that the cluster's is newer than Knows
}

// FormatError: one end does not understand the log of the other.
type FormatError struct {
	Addr          string
	Theirs        bool   // it is the other end that is too old
	Knows, Active uint32 // what that end understands, and what the cluster uses
}

func (e *FormatError) Error() string {
	if e.Theirs {
		return fmt.Sprintf("the node at %s runs a gatesync that is too old: the cluster's log is of format %d, it knows formats up to %d: install the version that the other members run there", e.Addr, e.Active, e.Knows)
	}
	return fmt.Sprintf("the cluster's log is of format %d, says the member at %s, and this gatesync knows formats up to %d: install the version that the other members run, then start this node again; nothing was changed", e.Active, e.Addr, e.Knows)
}

// tell fills in a greeting.
func (f Formats) tell(g *greeting) {
	if f.Knows > 0 {
		g.Knows, g.Active = f.Knows, f.Active()
	}
}

// judge refuses a server that this node could not follow, or that could not
// follow this node. Who is silent has nothing to say about formats.
func (f Formats) judge(addr string, g greeting) error {
	if f.Knows == 0 || g.Knows == 0 {
		return nil
	}
	if g.Active > f.Knows {
		err := &FormatError{Addr: addr, Knows: f.Knows, Active: g.Active}
		f.Outdated(err)
		return err
	}
	if active := f.Active(); active > g.Knows {
		return &FormatError{Addr: addr, Theirs: true, Knows: g.Knows, Active: active}
	}
	return nil
}
