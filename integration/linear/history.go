package linear

import (
	"slices"
	"sync"
	"time"
)

// Value is what stands at a path. The zero Value: nothing does.
type Value struct {
	Revision uint64 // that last changed the path
	Digest   string // of the content
}

// Change is one change of a Propose.
type Change struct {
	Path   string
	Expect uint64
	Digest string // of the new content, in hex; "" deletes
	// Content behind Digest; "" for one that the cluster has had before, or none.
	Content string
}

// Propose is a changeset, of paths of one group.
type Propose struct {
	Tag     string // names it in the log; no other has it
	Atomic  bool
	Changes []Change
}

// Read asks for paths of one group, as of one moment.
type Read struct{ Paths []string }

// Proposed is the answer to a Propose.
type Proposed struct {
	Revision uint64            // 0: nothing was changed
	Refused  map[string]uint64 // path → the revision that stands
}

// Found is the answer to a Read; a path at which nothing stands is not in it.
type Found struct {
	Revision uint64 // of the whole tree
	Values   map[string]Value
}

// outcome says how a proposal ended.
type outcome int

const (
	answered outcome = iota
	nothing          // an error said that nothing was committed
	unknown          // an error said nothing of that kind
)

// operation is one call of a client.
type operation struct {
	client    int
	group     int
	call, ret time.Duration // on the one clock of the history
	propose   *Propose      // either …
	read      *Read         // … or
	local     bool          // a read of what one node has seen
	end       outcome
	proposed  Proposed
	found     Found
}

// Commit is a revision of the log, as the nodes agree on it at the end.
type Commit struct {
	Revision uint64
	Tag      string
	Changes  map[string]string // path → digest, "" deleted
}

// History is what clients asked and were told. Safe for concurrent use.
type History struct {
	start time.Time

	mu  sync.Mutex
	ops []operation
}

// NewHistory starts the clock.
func NewHistory() *History { return &History{start: time.Now()} }

func (h *History) now() time.Duration { return time.Since(h.start) }

func (h *History) add(op operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

func (h *History) all() []operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ops)
}

// Counts tells how many operations there are of each kind, for a test that
// makes sure that it tested something.
func (h *History) Counts() (c Counts) {
	for _, op := range h.all() {
		switch {
		case op.read != nil && op.local:
			c.LocalReads++
		case op.read != nil:
			c.Reads++
		case op.end == unknown:
			c.Unknown++
		case op.end == nothing:
			c.Nothing++
		case len(op.proposed.Refused) > 0:
			c.Refused++
		case op.proposed.Revision > 0:
			c.Committed++
		default:
			c.InForce++
		}
	}
	return c
}

// Counts of a History. Refused counts proposals of which at least a part was.
type Counts struct {
	Committed, Refused, InForce, Unknown, Nothing, Reads, LocalReads int
}

// Enough tells whether something of each kind happened that a check can find wrong.
func (c Counts) Enough() bool { return c.Committed > 0 && c.Refused > 0 && c.Reads > 0 }
