package manifest

import "fmt"

// Change is one path's part of a changeset.
type Change struct {
	Path   Path
	Expect Revision // the revision that last changed the path, as the proposer knows it; 0: the path is absent
	New    Entry    // the zero Entry deletes
}

// Mode says what happens to a changeset when one of its changes conflicts.
type Mode uint8

const (
	// PerPath refuses what conflicts and commits the rest.
	PerPath Mode = 0
	// Atomic commits all or nothing.
	Atomic Mode = 1
)

// OriginKind says where a revision was first seen.
type OriginKind uint8

const (
	// FromTree is an edit seen in a node's tree.
	FromTree OriginKind = 1
	// FromMount is an edit seen on a shared mount.
	FromMount OriginKind = 2
	// FromAPI is a call: publish, rollback, a program.
	FromAPI OriginKind = 3
)

func (k OriginKind) String() string {
	switch k {
	case FromTree:
		return "tree"
	case FromMount:
		return "mount"
	case FromAPI:
		return "api"
	}
	return "unknown"
}

// Origin is where a revision was first seen.
type Origin struct {
	Kind OriginKind
	ID   string // the mount's id for FromMount
}

// ChangesetID names a proposal for ever, so that a retry is never applied
// twice: the proposing node and a sequence that this node never reuses.
type ChangesetID struct {
	Node string
	Seq  uint64
}

func (id ChangesetID) String() string { return fmt.Sprintf("%s/%d", id.Node, id.Seq) }

// Receipt says that a node's blob store durably holds all content of a
// changeset. A store that was wiped is another store.
type Receipt struct {
	Node  string
	Store string // the store's uuid
}

// Changeset is proposed as one by one node, for one tree.
type Changeset struct {
	ID       ChangesetID
	Tree     string
	Mode     Mode
	Origin   Origin
	Time     int64 // Unix nanoseconds on the proposer's clock; shown, never compared
	Message  string
	Changes  []Change
	Receipts []Receipt
}

// Reason says why a change was refused.
type Reason uint8

const (
	// Conflict: the path's revision is not the expected one.
	Conflict Reason = 1
	// NoParent: the parent directory is absent or no directory.
	NoParent Reason = 2
	// NotEmpty: a directory that still has children was to be deleted or replaced.
	NotEmpty Reason = 3
	// Malformed: a path or an entry that no tree can hold.
	Malformed Reason = 4
	// Aborted: another change of the same atomic changeset was refused.
	Aborted Reason = 5
)

func (r Reason) String() string {
	switch r {
	case Conflict:
		return "conflict"
	case NoParent:
		return "no parent directory"
	case NotEmpty:
		return "directory not empty"
	case Malformed:
		return "malformed"
	case Aborted:
		return "aborted with its changeset"
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Refusal is a change that the machine did not commit, as a value.
type Refusal struct {
	Path    Path
	Reason  Reason
	Current Revision // of the path, 0 where it is absent
}

// Result is the machine's answer to a changeset.
type Result struct {
	Revision Revision // 0 where nothing was committed (all no-ops or refused)
	Refused  []Refusal
	// AsOf is the newest revision when it was decided: what was in force already
	// was so then, and nothing can be said about it by who has not read so far.
	AsOf Revision
}

// Commit is one revision of the log as history keeps it.
type Commit struct {
	Revision Revision
	ID       ChangesetID
	Tree     string
	Origin   Origin
	Time     int64
	Message  string
	Changes  []Committed
}

// Committed is one change of a Commit: what stood there and what stands there now.
type Committed struct {
	Path Path
	Old  Node // zero where the path was absent
	New  Entry
}
