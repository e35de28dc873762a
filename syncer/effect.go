package syncer

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// Stamp identifies one version of one inode as far as stat tells it. Equal
// stamps mean "not touched since", unless Racy.
type Stamp struct {
	Ino   uint64
	Size  int64
	MTime int64 // Unix nanoseconds
	CTime int64 // Unix nanoseconds
	Racy  bool  // taken so soon after the change that a further write may hide behind the same times
}

// Ancestor is the state of one path that disk and log last agreed on.
type Ancestor struct {
	Entry    manifest.Entry
	Revision manifest.Revision
	Stamp    Stamp
	Author   string
}

// Sight is how a look at a path ended.
type Sight uint8

const (
	// Seen: Entry stands there; a file's content is in the blob store.
	Seen Sight = iota + 1
	// Gone: nothing stands there.
	Gone
	// Busy: somebody is writing, or it changed under the look. Look again later.
	Busy
	// Unreadable: permission or I/O; Why says what. Look again later.
	Unreadable
	// Unfit: what stands there cannot be replicated (device, FIFO, a symlink
	// out of the tree …); Why says what. It is held until it changes.
	Unfit
)

// Observation is what a look at one path found.
type Observation struct {
	Path  manifest.Path
	Sight Sight
	Entry manifest.Entry
	Stamp Stamp
	Why   string
	// Rest, of what is Busy only because it has not been left alone for long
	// enough: how much longer it has to be. A whole quietPeriod: it was changed.
	Rest time.Duration
}

// ---- Events: what happened. An executor posts them; Loop.Handle takes them.

// Event is one of the types below.
type Event interface{ event() }

// Hinted: these paths may differ (watcher, scan, a person). Hints carry no
// evidence; each is looked at before anything is decided.
type Hinted struct {
	Paths []manifest.Path
	// Witnessed: a process of this very machine changed them, as far as its file
	// events tell.
	Witnessed bool
}

// Looked answers a Look, path by path; one Look may be answered in pieces.
type Looked struct {
	Observations []Observation

	find uint64 // of the root that was looked at, for the executor
}

// Committed: the log has moved on. Commits lists what came since the last
// view, oldest first; where the log jumped (a snapshot) Jump is true and the
// loop compares the whole manifests.
type Committed struct {
	View    manifest.View
	Commits []manifest.Commit
	Jump    bool
	// Lately, of the first: all that was committed within the brake's window, also
	// what the disk has followed.
	Lately []manifest.Commit
}

// Proposed answers a Propose. Err is of the machinery (no quorum, no
// receipts): nothing is known to be committed, look and try again.
type Proposed struct {
	Batch  uint64
	Result manifest.Result
	Err    error
}

// Fetched: these blobs are now in the local store; Failed ones are not (yet).
type Fetched struct {
	Have   []manifest.Digest
	Failed []manifest.Digest
	Why    string // of the first failure
}

// PeerBack: a node can be reached again that could not. What could not be had
// is asked for at once.
type PeerBack struct{}

// Applied answers an Apply, step by step.
type Applied struct{ Results []StepResult }

// RootLost: the root is missing, replaced or carries a wrong marker. Nothing
// is looked at, proposed or materialized until RootBack. All observations in
// flight are void.
type RootLost struct{ Why string }

// RootBack: the root is in order. After Fresh the ancestor is of no use (a
// marker was made anew): everything on disk is unknown, as on a joiner.
type RootBack struct {
	Fresh bool
	Aside bool // what the log does not hold goes aside: it is of a life of the cluster that is over

	made string // name of its marker, for the executor
	find uint64 // number of this finding, likewise
}

// Placed says where the tree lies: whether other nodes have the same directory,
// and whether this node is its steward. The zero value: it is this node's own.
type Placed struct {
	Unknown bool   // nothing may be done before it is known
	Mount   string // the id of the directory that others have too, ""
	Acting  bool   // this node is the steward, and has taken up its work
	Epoch   uint64 // of the steward
	Known   bool   // another node of the mount knows what stands there
}

// Scanned: a complete scan of the tree has ended and all its hints are in.
// Of what stands below the Unread directories nobody knows anything.
type Scanned struct {
	Unread []Trouble

	find uint64 // of the root that was scanned, for the executor
}

// Tick: time went by.
type Tick struct{}

// Ruling is an operator's word on held paths; no Paths: all of them.
type Ruling struct {
	Verb  Verb
	Paths []manifest.Path
}

// Verb of a Ruling.
type Verb uint8

const (
	// Approve proposes what was held.
	Approve Verb = iota + 1
	// Restore puts the committed entry back; what stood there goes aside.
	Restore
	// Retry forgets refusals and looks again.
	Retry
)

func (Hinted) event()    {}
func (Looked) event()    {}
func (Committed) event() {}
func (Proposed) event()  {}
func (Fetched) event()   {}
func (PeerBack) event()  {}
func (Applied) event()   {}
func (RootLost) event()  {}
func (RootBack) event()  {}
func (Scanned) event()   {}
func (Placed) event()    {}
func (Tick) event()      {}
func (Ruling) event()    {}

// ---- Effects: what is to be done. Loop.Handle returns them, in order.

// Effect is one of the types below.
type Effect interface{ effect() }

// Look asks for an observation of each path. Was is the ancestor, whose stamp
// makes the reading of an untouched file unnecessary: equal stamps are
// answered with the ancestor's entry.
type Look struct{ Paths []LookAt }

// LookAt is one path of a Look.
type LookAt struct {
	Path manifest.Path
	Was  Ancestor
	// Want is what is committed, where other nodes have the same disk: a file that
	// holds it is seen at once, whoever may still have it open.
	Want manifest.Entry
}

// Propose asks to make the content durable on a majority and to propose the
// changes. Answered by Proposed, exactly once.
type Propose struct {
	Batch   uint64
	Changes []manifest.Change
	Origin  manifest.Origin
	// Begun, of a joiner: persisted before anything is proposed (State.Begun).
	Begun *manifest.Revision

	marker string // of the root that the loop knows, for the executor
}

// Fetch asks for blobs that the local store lacks. Answered by Fetched, each
// digest exactly once. Bases are what stands in their places now.
type Fetch struct {
	Blobs []manifest.BlobRef
	Bases manifest.Bases
}

// Apply asks to materialize the steps in their order. The plan is persisted
// before the first step and every step is idempotent. Answered by Applied,
// each step exactly once, with the ancestor already persisted. Reached is the
// revision that the steps come from: persisted before the first step, so that
// after a crash no older view is taken for news (State.Reached).
type Apply struct {
	Steps   []Step
	Reached manifest.Revision
	// Begun, of a joiner: persisted before the first step (State.Begun).
	Begun *manifest.Revision

	marker string // of the root that the loop knows, for the executor
}

// Record asks to persist the advance of the ancestor. A file that was seen in
// the tree (not written by Apply) is flushed first, and so is its directory.
// Not answered. Records are persisted in the order they were asked for.
type Record struct{ Updates []Update }

// Update is one path of a Record.
type Update struct {
	Path     manifest.Path
	Ancestor *Ancestor // nil: the path is absent on disk and in the log
	Flush    bool
	// News: another machine wrote it on a shared disk, just now.
	News bool
}

// Remember asks to persist or (Note nil) forget what the loop knows about a
// path beyond its ancestor. Not answered.
type Remember struct {
	Path manifest.Path // "" for the whole tree
	Note *Note
}

// Note is what the loop remembers about a path across restarts.
type Note struct {
	Guard Guard
	Why   string
	Time  int64          // Unix nanoseconds
	Entry manifest.Entry // the disk's state that it is about
	// Base is the committed revision of the path when the note was made.
	Base manifest.Revision
}

// Guard names what holds a path back.
type Guard string

// The guards.
const (
	GuardRoot       Guard = "root"           // the root is missing or not ours
	GuardMassDelete Guard = "mass-delete"    // too many deletions at once
	GuardJoiner     Guard = "joiner"         // stood here before the node joined
	GuardRecords    Guard = "records"        // the records that knew its past were damaged
	GuardUnread     Guard = "unread"         // a directory could not be read when the node joined: what is new below it is held
	GuardUnreadLost Guard = "unread-records" // … or when its records were damaged: what differs below it is held
	GuardUnfit      Guard = "unfit"          // cannot be replicated
	GuardRefused    Guard = "refused"        // the machine refused it, not for a conflict
	GuardLeft       Guard = "left-behind"    // could not be removed
	GuardRoom       Guard = "room"           // no space
	GuardWrite      Guard = "write"          // edited where nothing is taken from (write: never)
	GuardRewritten  Guard = "rewritten"      // … again and again after it was repaired
)

// Rescan asks for a complete scan of the tree; answered by Hinted (any number
// of them) and then Scanned.
type Rescan struct{}

// Joined says that everything that stood on a joiner's disk has been decided
// upon, and that nothing is left to be done about it: to be persisted, so that a
// restart is no joiner's. Not answered.
type Joined struct{}

// Opened says that everything that was edited while the tree took no edits has been
// noted as held: to be persisted. Not answered.
type Opened struct{}

// Keep asks to keep content aside that this node has captured and that stands
// in no tree and in no revision. Not answered.
type Keep struct {
	Path  manifest.Path
	Aside Aside
}

// Follow says that the disk has followed every revision up to this one (0:
// nothing new is known of that), and
// that whatever a loss of power had left on it was looked at: to be persisted,
// with the boot of the machine, after the Records before it; late is well, lost
// is well. Not answered.
type Follow struct{ Revision manifest.Revision }

// Wake asks for a Tick not before At.
type Wake struct{ At time.Time }

func (Look) effect()     {}
func (Propose) effect()  {}
func (Fetch) effect()    {}
func (Apply) effect()    {}
func (Record) effect()   {}
func (Remember) effect() {}
func (Rescan) effect()   {}
func (Joined) effect()   {}
func (Opened) effect()   {}
func (Keep) effect()     {}
func (Follow) effect()   {}
func (Wake) effect()     {}

// Op is what a step does.
type Op uint8

const (
	// PutFile places a file's content and mode: exchange and look.
	PutFile Op = iota + 1
	// PutDir makes a directory, or gives it its mode.
	PutDir
	// PutSymlink places a symbolic link.
	PutSymlink
	// SetMode changes the mode alone and keeps the mtime.
	SetMode
	// Remove takes a file, symlink or empty directory away: rename out and look.
	Remove
)

// Step is one path of an Apply.
type Step struct {
	Path manifest.Path
	Op   Op
	// Expect is what the disk holds as far as the loop knows; the zero Entry:
	// nothing. Its stamp is compared first, its content where the stamp differs.
	Expect Ancestor
	// New is what the log says (for Remove: the zero Entry and the revision
	// that is agreed upon).
	New manifest.Node
	// Ordered: a person asked for it, and it is done by whichever node of a mount.
	Ordered bool
	// Repair: it undoes an edit in a tree that takes none.
	Repair bool
	// Aside is set where the disk's content lost a conflict: it is kept (the
	// blob is in the store) and recorded before the step is done.
	Aside *Aside
}

// Aside says why content is kept aside.
type Aside struct {
	Lost   manifest.Entry
	Winner manifest.Revision
	Why    string
}

// StepOutcome is how a step ended.
type StepOutcome uint8

const (
	// StepDone: the path holds New; Ancestor is what was persisted.
	StepDone StepOutcome = iota + 1
	// StepSurprise: the disk did not hold what was expected, and nothing was
	// changed (or it was put back). Look again.
	StepSurprise
	// StepBusy: somebody writes the file. Try again later.
	StepBusy
	// StepLeft: a directory still holds ignored files and was left behind.
	StepLeft
	// StepNoRoom: the file system takes nothing now: it is full, or read-only.
	// Try again later.
	StepNoRoom
	// StepFailed: Err says why (permission, I/O). Try again later.
	StepFailed
)

// StepResult answers one Step.
type StepResult struct {
	Path     manifest.Path
	Outcome  StepOutcome
	Ancestor *Ancestor // StepDone: as persisted; nil where the path is now absent
	Err      error
}
