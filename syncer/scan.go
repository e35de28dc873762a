package syncer

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

const (
	// scanShare bounds what periodic scans cost: the pause before the next one
	// is at least so many times as long as the last one took (half a percent).
	scanShare = 200
	// limitedInterval is how often a tree is scanned that cannot be watched as
	// a whole.
	limitedInterval = 5 * time.Second
	// scanRetry is the pause after a scan that has failed.
	scanRetry = time.Second
)

// scanner compares the tree with the ancestor's stamps and hints at whatever
// may differ. It never decides: a scan that is slow, or overtaken by events,
// does no harm. One scan runs at a time; subtrees (new or moved directories)
// go before complete scans, and what is asked for twice is done once.
type scanner struct {
	s    *Syncer
	wake chan struct{}

	mu     sync.Mutex
	whole  bool
	dirs   map[manifest.Path]struct{}
	asked  uint64 // complete scans asked for …
	ended  uint64 // … and answered up to this one
	failed error  // of the last complete one
	last   ScanStatus
	done   broadcast

	// Owned by run:
	unread  []Trouble // directories that could not be listed
	again   time.Time // when they are tried again, zero: not planned
	retries int       // of them, in a row
	turn    bool      // subtrees were scanned last: a complete scan that is wanted goes first
}

// ScanStatus tells about the last complete scan.
type ScanStatus struct {
	Ended   time.Time
	Took    time.Duration
	Entries int
}

func newScanner(s *Syncer) *scanner {
	return &scanner{s: s, wake: make(chan struct{}, 1), dirs: map[manifest.Path]struct{}{}}
}

// request asks for a scan of a directory, "" for a complete one, and returns
// the ticket of the latter.
func (sc *scanner) request(dir manifest.Path) (ticket uint64) {
	sc.mu.Lock()
	if dir == "" {
		sc.whole = true
		sc.asked++
	} else {
		sc.dirs[dir] = struct{}{}
	}
	ticket = sc.asked
	sc.mu.Unlock()
	select {
	case sc.wake <- struct{}{}:
	default:
	}
	return ticket
}

// wait waits until a complete scan that was asked for has ended, and tells why
// it has failed if it has.
func (sc *scanner) wait(ctx context.Context, ticket uint64) error {
	for {
		next := sc.done.next()
		sc.mu.Lock()
		over, err := sc.ended >= ticket, sc.failed
		sc.mu.Unlock()
		if over {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
		}
	}
}

func (sc *scanner) status() ScanStatus {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	return sc.last
}

// run scans when asked, and from time to time: however often subtrees are asked
// for, a complete scan comes when it is due. One goroutine of Run.
func (sc *scanner) run(ctx context.Context) {
	ended := time.Now() // the last complete scan
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		next := ended.Add(sc.pause())
		if !next.After(now) {
			sc.request("")
		}
		if !sc.again.IsZero() && !sc.again.After(now) {
			for _, d := range sc.unread {
				sc.request(d.Path)
			}
			sc.again = time.Time{}
		}
		scanned, whole := sc.one(ctx)
		if whole {
			ended = time.Now()
		}
		if scanned {
			continue
		}
		if !sc.again.IsZero() && sc.again.Before(next) {
			next = sc.again
		}
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-sc.wake:
		}
	}
}

// tryAgain plans when directories that could not be listed are tried again.
func (sc *scanner) tryAgain() {
	if len(sc.unread) == 0 {
		sc.again, sc.retries = time.Time{}, 0
		return
	}
	if sc.again.IsZero() {
		sc.again = time.Now().Add(min(backoff(scanRetry, sc.s.cfg.ScanInterval, sc.retries), sc.s.cfg.ScanInterval))
		sc.retries++
	}
}

// pause is how long to wait before the next periodic scan.
func (sc *scanner) pause() time.Duration {
	d := sc.s.cfg.ScanInterval
	if sc.s.watcher.trouble() != "" {
		d = min(d, limitedInterval)
	}
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.failed != nil {
		return scanRetry
	}
	if !sc.s.scans() {
		return never
	}
	return max(d, scanShare*sc.last.Took)
}

// one does the next scan that is wanted, if any.
func (sc *scanner) one(ctx context.Context) (scanned, whole bool) {
	sc.mu.Lock()
	var dirs []manifest.Path
	var ticket uint64
	switch {
	case len(sc.dirs) > 0 && !(sc.whole && sc.turn):
		for d := range sc.dirs {
			dirs = append(dirs, d)
		}
		clear(sc.dirs)
		sc.turn = true
	case sc.whole:
		sc.whole, sc.turn, ticket = false, false, sc.asked
	default:
		sc.mu.Unlock()
		return false, false
	}
	sc.mu.Unlock()

	start, find := time.Now(), sc.s.root.finding()
	entries, err := sc.scan(ctx, dirs)
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrRootLost) {
		sc.s.log.Warn("a scan has failed; the next one tries again", "err", err)
	}
	sc.mu.Lock()
	if ticket > 0 {
		sc.ended, sc.failed = ticket, err
		if err == nil {
			sc.last = ScanStatus{Ended: time.Now(), Took: time.Since(start), Entries: entries}
		}
	}
	sc.mu.Unlock()
	if ticket > 0 && err == nil {
		sc.s.inbox.post(Scanned{Unread: slices.Clone(sc.unread), find: find})
	}
	sc.tryAgain()
	sc.done.signal()
	return true, ticket > 0
}

// scan walks directories (none: the whole tree) and hints.
func (sc *scanner) scan(ctx context.Context, dirs []manifest.Path) (entries int, err error) {
	g, done, err := sc.s.root.borrow()
	if err != nil {
		return 0, err
	}
	defer done()
	if err := sc.s.root.verify(g); err != nil {
		return 0, err
	}
	known, err := ask(ctx, sc.s, (*Loop).known)
	if err != nil {
		return 0, err
	}
	if len(dirs) == 0 {
		sc.s.watcher.scanBegins(g.fs)
		defer sc.s.watcher.scanEnds()
	}
	w := &walk{ctx: ctx, s: sc.s, fs: g.fs}
	had := sc.unread
	if len(dirs) == 0 {
		err = w.compare("", known.ancestors)
	}
	for _, d := range dirs {
		w.hint(d)
		err = errors.Join(err, w.compare(d, known.ancestors))
	}
	unread := w.unread
	w.unread = nil
	for _, d := range unread { // it may have been a moment's trouble
		err = errors.Join(err, w.compare(d.Path, known.ancestors))
	}
	if err != nil {
		return w.entries, err
	}
	for _, p := range known.noted { // it may be as the ancestor says again, or gone
		unread := slices.ContainsFunc(w.unread, func(t Trouble) bool { return p.Under(t.Path) })
		if !unread && (len(dirs) == 0 || slices.ContainsFunc(dirs, p.Under)) {
			w.hint(p)
		}
	}
	if err := sc.s.root.verify(g); err != nil {
		return w.entries, err // an emptied root looks like many deletions
	}
	sc.s.inbox.hint(w.hints...)
	sc.unread = w.unread
	if len(dirs) > 0 {
		sc.unread = append(slices.DeleteFunc(slices.Clone(had), func(t Trouble) bool {
			return slices.ContainsFunc(dirs, func(d manifest.Path) bool { return t.Path == d || t.Path.Under(d) })
		}), w.unread...)
		if len(had) > 0 && len(sc.unread) == 0 {
			sc.request("") // only a complete scan says that everything was read
		}
	}
	return w.entries, nil
}

// walk is one scan: the tree and the ancestor side by side, both in path order.
type walk struct {
	ctx     context.Context
	s       *Syncer
	fs      vfs.FS
	hints   []manifest.Path
	unread  []Trouble // directories that could not be listed
	entries int

	next func() (manifest.Path, Ancestor, bool) // of the ancestor
	path manifest.Path                          // that is next in it
	anc  Ancestor
	more bool
}

// hint notes a path that may differ.
func (w *walk) hint(p manifest.Path) {
	w.hints = append(w.hints, p)
}

func (w *walk) advance() { w.path, w.anc, w.more = w.next() }

// compare walks everything below dir.
func (w *walk) compare(dir manifest.Path, anc *AncestorMap) error {
	next, stop := iter.Pull2(func(yield func(manifest.Path, Ancestor) bool) { anc.Under(dir, yield) })
	defer stop()
	w.next = next
	w.advance()
	if err := w.list(dir); err != nil {
		return err
	}
	w.missingUpTo("")
	return nil
}

// missingUpTo hints at what the ancestor has before p and the disk has not; ""
// is the end.
func (w *walk) missingUpTo(p manifest.Path) {
	for w.more && (p == "" || manifest.Compare(w.path, p) < 0) {
		if !w.s.cfg.Ignore.Match(w.path, w.anc.Entry.IsDir()) {
			w.hint(w.path)
		}
		w.advance()
	}
}

// list compares the content of a directory. The watch comes first: what is
// made between the two is seen by one of them.
func (w *walk) list(dir manifest.Path) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	w.s.watcher.add(dir)
	names, err := w.fs.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, vfs.ErrNotDir):
		return nil // what was below is missing
	case err != nil && dir == "":
		return err
	case err != nil:
		// Nothing can be said about what is below. The look tells the person.
		w.s.log.Warn("cannot list a directory", "path", dir, "err", err)
		w.hint(dir)
		w.unread = append(w.unread, Trouble{dir, err.Error()})
		for w.more && w.path.Under(dir) {
			w.advance()
		}
		return nil
	}
	for _, e := range names {
		p := dir.Join(e.Name)
		if w.s.cfg.Ignore.Match(p, e.Stat.Kind == manifest.Dir) {
			continue
		}
		w.entries++
		if p.Unfit() != "" {
			w.hint(p) // the look tells the person; nor can anything below it be held
			continue
		}
		w.missingUpTo(p)
		known := w.more && w.path == p
		if !known || !w.s.unchanged(e.Stat, w.anc) {
			w.hint(p)
		}
		if known {
			w.advance()
		}
		if e.Stat.Kind == manifest.Dir {
			if err := w.list(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// unchanged tells whether what stat says is what the ancestor was.
func (s *Syncer) unchanged(st vfs.Stat, a Ancestor) bool {
	if st.Kind != a.Entry.Kind {
		return false
	}
	switch st.Kind {
	case manifest.Dir:
		return s.modeOf(st, a.Entry) == a.Entry.Mode
	case manifest.File:
		return !a.Stamp.Racy && stampOf(st) == a.Stamp && s.modeOf(st, a.Entry) == a.Entry.Mode
	}
	return stampOf(st) == a.Stamp
}

// unchangedBut is unchanged for a file that was perhaps stamped too soon.
func (s *Syncer) unchangedBut(st vfs.Stat, a Ancestor) bool {
	a.Stamp.Racy = false
	return s.unchanged(st, a)
}

// modeOf is the mode that is replicated of what stands on disk. A mode that is
// exactly the agreed one stays it, whatever the mask: nodes with different
// masks would otherwise answer each other for ever.
func (s *Syncer) modeOf(st vfs.Stat, was manifest.Entry) uint32 {
	if st.Kind == manifest.Symlink {
		return 0o777
	}
	if st.Kind == was.Kind && st.Mode == was.Mode {
		return was.Mode
	}
	return st.Mode & s.cfg.ModeMask & 0o777
}

func stampOf(st vfs.Stat) Stamp {
	return Stamp{Ino: st.Ino, Size: st.Size, MTime: st.MTime, CTime: st.CTime}
}
