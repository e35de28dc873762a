package manifest

// Views are the three states of one path, and what the log says lies between
// the first and the last.
type Views struct {
	Ancestor  Node  // what disk and log last agreed on; the zero Node: both had nothing
	Disk      Entry // what stands there now; the zero Entry: nothing
	Committed Node  // what the log says; the zero Node: nothing
	// Since are the entries that the log gave the path after the ancestor's
	// revision, oldest first. May be empty where history does not reach back.
	Since []Entry
	// Own: every one of those revisions was proposed from this very disk, which
	// has not lost anything unflushed since.
	Own bool
}

// Verdict says what ends a difference.
type Verdict uint8

const (
	// Nothing is to be done.
	Nothing Verdict = iota
	// Agree: disk and log hold the same; the ancestor follows.
	Agree
	// Materialize the committed entry; nothing on disk is lost by it.
	Materialize
	// Offer the disk's entry to the log, expecting Committed.Revision.
	Offer
	// Collide: keep the disk's content aside, then materialize.
	Collide
	// Stand: the disk's entry stands, and is shown. Only Edits.Of says so.
	Stand
)

func (v Verdict) String() string {
	return [...]string{"nothing", "agree", "materialize", "offer", "collide", "stand"}[v]
}

// Reconcile is the three-way comparison of one path (docs/design.md, "the one
// loop"; the idea is that of mutagen's and git's merges). It looks at one path
// alone: what directories need of their children is the caller's.
func Reconcile(v Views) Verdict {
	a, d, c := v.Ancestor, v.Disk, v.Committed
	logMoved := a.Revision != c.Revision || !a.Entry.Same(c.Entry) || len(v.Since) > 0
	diskMoved := !d.Same(a.Entry)
	switch {
	case d.Same(c.Entry) && !logMoved:
		return Nothing
	case d.Same(c.Entry):
		return Agree
	case !diskMoved:
		return Materialize
	case !logMoved:
		return Offer
	}
	// Both moved, to different ends. A disk that holds what the log held in
	// between is late, not edited.
	for _, e := range v.Since {
		if d.Same(e) {
			return Materialize
		}
	}
	switch {
	case v.Own:
		return Offer // one's own commit meets a newer disk
	case d.Absent(), d.IsDir() && (c.Entry.IsDir() || c.Entry.Absent()), d.SameContent(c.Entry):
		return Materialize // a deletion or a mode lost; no content is
	}
	return Collide
}
