package syncer

import (
	"container/heap"
	"slices"
	"time"

	"github.com/tidwall/btree"

	"github.com/gatesync/gatesync/manifest"
)

// phase is where a path's work stands.
type phase uint8

const (
	presumed phase = iota // nobody has looked: the disk is taken to be as the ancestor says
	toLook                // to be looked at, not before work.at
	looking               // a Look is under way
	settled               // obs is what stands there
	offered               // its change is in a batch under way
	awaiting              // answered; the view has yet to reach work.awaits
	fetching              // its blob is on the way
	staged                // its blob is here; to be applied when the lane is free
	applying              // a step is under way
	waiting               // cannot go on before another path has (parents, children)
)

// work is what the loop knows about one path that is not in agreement.
type work struct {
	path     manifest.Path
	phase    phase
	again    bool   // hinted while a look, a proposal or a step was under way
	shut     bool   // differed when the tree began to take edits again, and has not come to rest since
	repair   bool   // what is being decided undoes an edit
	lookedAt uint32 // the last mark when the last look began
	obs      Observation
	at       time.Time // toLook, settled: not before

	goneAt time.Time // first of the sightings as absent, zero if it was not
	tries  int       // in a row without success: busy, failed
	why    string    // of the last failure, for status
	// fails counts the steps in a row that failed, whatever was seen between
	// them; failing says why, and noRoom that it is not for the path's sake.
	fails    int
	failing  string
	noRoom   bool
	wasThere bool   // a look saw it standing: that it was held as gone says nothing
	spent    bool   // what was witnessed is what it offered last: nothing was witnessed since
	sighted  bool   // a look has seen what was witnessed last
	begun    uint32 // the loop's last mark when it came about, or when the last look began that was worked off, see Loop.Mark

	setbacks int // offers that were refused and steps that met a surprise, in a row

	pending   manifest.Revision // oldest committed revision that the disk has yet to follow, 0: none
	awaits    manifest.Revision
	result    changeResult
	sent      *manifest.Entry // what was offered last, nil: nothing
	unsent    bool            // its last offer failed for want of quorum or receipts
	cut       bool            // differed after a loss of power, and has not come to rest since
	void      bool            // what is under way for it is of a root that was given up
	wanted    bool            // as a directory, by a path below it that is to be offered
	needed    bool            // as a directory, by a path below it that is to be materialized
	news      bool            // the log changed it in this run
	witnessed bool            // a process of this very machine changed it, as its events say
	unheard   bool            // … or may have, while the root was lost and no events told
	mount     *sharedWork     // of a disk that other nodes have too; nil: nothing
	step      *Step           // that ends the difference, from staged on
	chain     []link          // what the log did to the path since its ancestor, oldest first
}

// rested notes that what the last look saw needs no more work.
func (w *work) rested() { w.begun = max(w.begun, w.lookedAt) }

// link is one revision of a path.
type link struct {
	entry    manifest.Entry
	revision manifest.Revision
	old      manifest.Revision // that it replaced
	was      manifest.Entry    // … and what that was
	own      bool              // proposed from this very disk
	mount    bool              // … which several nodes have
	from     string            // the mount that it was seen on first
	self     bool              // proposed by this node
	live     bool              // committed while this run was following the log
}

// since lists the entries that the log gave the path since its ancestor. What the
// first of them replaced is one, too: a disk that has it, and died before that was
// recorded, is late.
func (w *work) since() []manifest.Entry {
	var out []manifest.Entry
	if len(w.chain) > 0 && !w.chain[0].was.Absent() {
		out = append(out, w.chain[0].was)
	}
	for _, k := range w.chain {
		out = append(out, k.entry)
	}
	return out
}

// own tells whether every revision from the ancestor a to the committed c was
// proposed from this very disk.
func (w *work) own(a Ancestor, c manifest.Node) bool {
	at := a.Revision
	for _, k := range w.chain {
		if !k.own || k.old != at {
			return false
		}
		at = k.revision
		if k.entry.Absent() {
			at = 0
		}
	}
	return len(w.chain) > 0 && at == c.Revision
}

// changeResult is the machine's answer to one change.
type changeResult struct {
	revision manifest.Revision
	refused  manifest.Reason // 0: it was not
}

// workMap holds works in path order.
type workMap struct {
	tree *btree.BTreeG[workItem]
	mark uint32 // the last, see Loop.Mark
}

type workItem struct {
	path manifest.Path
	work *work
}

func newWorkMap() *workMap {
	return &workMap{tree: btree.NewBTreeGOptions(
		func(a, b workItem) bool { return manifest.Compare(a.path, b.path) < 0 },
		btree.Options{NoLocks: true, Degree: 32},
	)}
}

func (m *workMap) get(p manifest.Path) *work {
	it, _ := m.tree.Get(workItem{path: p})
	return it.work
}

func (m *workMap) ensure(p manifest.Path) *work {
	if w := m.get(p); w != nil {
		return w
	}
	w := &work{path: p, begun: m.mark}
	m.tree.Set(workItem{p, w})
	return w
}

func (m *workMap) drop(p manifest.Path) { m.tree.Delete(workItem{path: p}) }

func (m *workMap) len() int { return m.tree.Len() }

func (m *workMap) each(fn func(*work) bool) {
	m.tree.Scan(func(it workItem) bool { return fn(it.work) })
}

func (m *workMap) under(dir manifest.Path, fn func(*work) bool) {
	m.tree.Ascend(workItem{path: dir + "/"}, func(it workItem) bool {
		return it.path.Under(dir) && fn(it.work)
	})
}

// pathSet is a set of paths; sorted gives them in path order, so that what the
// loop does never depends on the order of a map.
type pathSet map[manifest.Path]struct{}

func (s pathSet) add(p manifest.Path) { s[p] = struct{}{} }

func (s pathSet) drop(p manifest.Path) { delete(s, p) }

func (s pathSet) has(p manifest.Path) bool { _, ok := s[p]; return ok }

func (s pathSet) sorted() []manifest.Path {
	out := make([]manifest.Path, 0, len(s))
	for p := range s {
		out = append(out, p)
	}
	slices.SortFunc(out, manifest.Compare)
	return out
}

// timerHeap holds the times at which paths want to be seen to. Entries may be
// stale; whoever takes one checks the work's own time.
type timerHeap struct{ items timerItems }

type timerItem struct {
	at   time.Time
	path manifest.Path
}

type timerItems []timerItem

func (h timerItems) Len() int           { return len(h) }
func (h timerItems) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerItems) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerItems) Push(x any)        { *h = append(*h, x.(timerItem)) }
func (h *timerItems) Pop() any {
	old := *h
	it := old[len(old)-1]
	*h = old[:len(old)-1]
	return it
}

func (h *timerHeap) add(at time.Time, p manifest.Path) { heap.Push(&h.items, timerItem{at, p}) }

func (h *timerHeap) next() (time.Time, bool) {
	if len(h.items) == 0 {
		return time.Time{}, false
	}
	return h.items[0].at, true
}

// due takes the next path whose time has come.
func (h *timerHeap) due(now time.Time) (manifest.Path, bool) {
	if len(h.items) == 0 || h.items[0].at.After(now) {
		return "", false
	}
	return heap.Pop(&h.items).(timerItem).path, true
}
