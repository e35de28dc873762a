package syncer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// Syncer is the executor of one tree's Loop.
//
// One goroutine owns the Loop and does nothing slow: it hands events in and
// effects out. Lookers, scanner, watcher, persister, proposals, fetches and
// the two materializing lanes run beside it and answer through the inbox. All
// of them live inside Run.
type Syncer struct {
	cfg    Config
	log    *slog.Logger
	inbox  *inbox
	loop   *Loop   // owned by Run's loop goroutine
	marker string  // of the root that the loop knows; owned by the loop goroutine, like find
	find   uint64  // of the root that the loop knows
	told   pathSet // edits that the log of this run has named; owned by the loop goroutine
	rec    *records
	root   *rootKeeper

	persister  *persister
	lookers    *lookers
	scanner    *scanner
	watcher    *watcher
	lanes      lanes
	quarantine *quarantine
	placer     *placer
	beat       beat
	opened     time.Time
	proposals  chan struct{} // tokens of small proposals under way
	bigOffers  chan struct{} // tokens of large ones

	remake  atomic.Bool // the next attempt to find the root may make a marker
	first   atomic.Bool // the root has never had its marker from us
	running atomic.Bool
	found   rootFound // by Open
	foundOK bool

	bg       sync.WaitGroup    // of goroutines that effects start
	rounds   broadcast         // after each round of the loop
	logAt    manifest.Revision // of the last Committed; owned by watchLog
	floor    atomic.Uint64     // newest revision that any path had agreed on when this run began
	logRead  bool
	afresh   atomic.Bool            // nothing counts any more that was agreed on
	reached  atomic.Uint64          // as persisted by the lanes
	begun    atomic.Pointer[string] // marker of the root of which State.Begun was persisted
	began    State                  // that this run began with, until the log was read once
	names    atomic.Uint64          // of staged names in this run
	stagedBy string                 // prefix of staged names, unique to this run
}

// ErrRunning: Run was called twice, or Close during Run.
var ErrRunning = errors.New("the syncer is running")

// Open loads what is known about the tree and recovers what an unfinished plan
// left behind. A root that is not there (yet) is no error: Run waits for it.
func Open(cfg Config) (*Syncer, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.ModeMask == 0 {
		cfg.ModeMask = DefaultModeMask
	}
	if cfg.ScanInterval == 0 {
		cfg.ScanInterval = time.Minute
	}
	if cfg.Loop.Settle == 0 {
		adopt, rank, limit, edits := cfg.Loop.Adopt, cfg.Loop.Rank, cfg.Loop.MaxDelete, cfg.Loop.Edits
		cfg.Loop = DefaultLoopConfig(cfg.Self, cfg.Tree)
		cfg.Loop.Adopt, cfg.Loop.Rank, cfg.Loop.Edits = adopt, rank, edits
		if limit != (manifest.DeleteLimit{}) {
			cfg.Loop.MaxDelete = limit
		}
	}
	cfg.Loop.Self, cfg.Loop.Tree = cfg.Self, cfg.Tree
	if cfg.Since == 0 || cfg.Since > cfg.Generation {
		cfg.Since = cfg.Generation
	}

	s := &Syncer{
		cfg: cfg, log: cfg.Logger.With("tree", cfg.Tree), inbox: newInbox(), opened: time.Now(), told: pathSet{},
		proposals: make(chan struct{}, 8), bigOffers: make(chan struct{}, 2),
		stagedBy: fmt.Sprintf("%x", cfg.Now().UnixNano()),
	}
	rec, err := s.openOrReplace()
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", cfg.Tree, err)
	}
	s.rec = rec
	s.root = newRootKeeper(cfg.OpenRoot, marker{
		Format: markerFormat, Cluster: cfg.ClusterID, Tree: cfg.TreeID, Generation: cfg.Generation,
	}, s.log)
	s.root.since = cfg.Since
	s.root.onLost = func(why string) { s.inbox.post(RootLost{Why: why}) }
	s.persister = newPersister(rec, s.root, s.log)
	s.lookers = newLookers(s)
	s.scanner = newScanner(s)
	s.watcher = newWatcher(s)
	s.lanes = newLanes()
	s.quarantine = newQuarantine()
	s.placer = newPlacer(s)
	if cfg.Mounts != nil {
		s.cfg.Loop.Placing, s.cfg.Loop.Former = true, cfg.Mounts.Former
	}
	if err := s.load(); err != nil {
		_ = rec.close()
		_ = s.root.close()
		return nil, fmt.Errorf("tree %s: %w", cfg.Tree, err)
	}
	return s, nil
}

// load reads the records, finds the root and makes the Loop.
func (s *Syncer) load() error {
	known, err := s.rec.load(s.cfg.BootID)
	if err != nil {
		return err
	}
	if known, err = s.ofThisLife(known); err != nil {
		return err
	}
	if !known.rooted && s.cfg.Joiner {
		known.state.Joiner, known.state.Aside = true, s.cfg.Aside
		if err := s.rec.setMeta(joinerMeta(s.cfg.Aside)); err != nil {
			return err
		}
	}
	if s.cfg.Loop.Edits != manifest.EditsOffered && !known.state.Closed {
		if err := s.rec.setMeta(map[string][]byte{metaClosed: {1}}); err != nil {
			return err
		}
	}
	s.first.Store(!known.rooted)
	s.root.made = known.marker
	s.root.onMake = func(made string) error {
		return s.rec.setMeta(map[string][]byte{metaMarker: []byte(made)})
	}
	s.root.onFound = s.rooted
	found, err := s.root.find(context.Background(), s.first.Load(), false, s.recoverStaging)
	switch {
	case errors.Is(err, ErrRootLost):
		s.log.Warn("the root cannot be used yet", "err", err)
	case err != nil:
		return err
	default:
		s.found, s.foundOK = found, true
		if found.fresh { // what was known until now is void
			if known, err = s.rec.load(s.cfg.BootID); err != nil {
				return err
			}
		}
	}
	if err := s.forgetIgnored(known.state); err != nil {
		return err
	}
	s.logAt = known.state.Followed
	s.floor.Store(uint64(known.state.Floor()))
	s.reached.Store(uint64(known.state.Reached))
	s.began = known.state
	if known.state.Ancestors != nil {
		s.began.Ancestors = known.state.Ancestors.Clone()
	}
	s.loop = NewLoop(s.cfg.Loop, known.state)
	s.placer.joiner = s.loop.unknownHeld() || s.foundOK && s.found.fresh
	return nil
}

// forgetIgnored takes away the notes of what is ignored by now: nothing that is
// ignored is looked at, or held.
func (s *Syncer) forgetIgnored(st State) error {
	var forget []Remember
	for p, n := range st.Notes {
		a, _ := st.Ancestors.Get(p)
		if p != "" && s.cfg.Ignore.Match(p, n.Entry.IsDir() || a.Entry.IsDir() || n.Guard.unread()) {
			delete(st.Notes, p)
			forget = append(forget, Remember{Path: p})
		}
	}
	if len(forget) == 0 {
		return nil
	}
	return s.rec.db.Update(recordJob{notes: forget}.write)
}

// Run works until ctx ends, and returns when everything it started has ended.
func (s *Syncer) Run(ctx context.Context) error {
	if !s.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer s.running.Store(false)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	if s.foundOK {
		s.watcher.reset(s.found.gen.fs)
		s.placer.begin(s.found.gen)
		s.inbox.post(RootBack{Fresh: s.found.fresh, Aside: s.found.older && s.cfg.Aside, made: s.found.made, find: s.found.find})
	} else {
		lost, _ := s.root.state()
		s.inbox.post(RootLost{Why: lost})
	}
	s.foundOK = false

	var wg sync.WaitGroup
	for _, fn := range []func(context.Context){
		s.guardRoot, s.watchLog, s.watcher.run, s.scanner.run, s.lookers.run,
		s.runSmallLane, s.runBigLane, s.runQuarantine, s.placer.run,
	} {
		wg.Go(func() { fn(ctx) })
	}
	persisting, stopPersisting := context.WithCancel(context.Background())
	defer stopPersisting()
	var last sync.WaitGroup
	last.Go(func() { s.persister.run(persisting) })

	damaged := make(chan error, 1)
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case err := <-s.persister.damaged:
			damaged <- err
			cancel()
		}
	})
	s.runLoop(ctx)
	wg.Wait()
	s.bg.Wait()
	stopPersisting() // last: the others hand it what they have done
	last.Wait()
	select {
	case err := <-damaged:
		return fmt.Errorf("tree %s: %w; at the next start it is set aside, and what differs is held", s.cfg.Tree, err)
	default:
		return nil
	}
}

// Close ends the use of root and records. Run must have returned.
func (s *Syncer) Close() error {
	if s.running.Load() {
		return ErrRunning
	}
	return errors.Join(s.watcher.close(), s.root.close(), s.rec.close())
}

// runLoop is the goroutine that owns the Loop.
func (s *Syncer) runLoop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	s.handle(ctx, Tick{}, timer)
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			s.inbox.post(Tick{})
		case <-s.inbox.ready:
		}
		events, calls := s.inbox.take()
		for _, ev := range events {
			s.handle(ctx, ev, timer)
		}
		for _, fn := range calls {
			fn(s.loop)
		}
		if len(events) > 0 { // a mere question changes nothing
			s.rounds.signal()
		}
	}
}

// handle feeds one event in and starts what comes out.
func (s *Syncer) handle(ctx context.Context, ev Event, timer *time.Timer) {
	// What was seen in a root that was lost since says nothing about this one.
	switch ev := ev.(type) {
	case RootBack:
		if s.find != 0 && s.loop.rootLost == "" {
			// Lost again before anybody was told that it is back, or found before that
			// was told: what is under way is of another finding, and its answers are dropped.
			s.handle(ctx, RootLost{Why: "it was lost for a moment"}, timer)
		}
		s.marker, s.find = ev.made, ev.find
	case Scanned:
		if ev.find != s.find {
			return
		}
	case Looked:
		if ev.find != s.find {
			return
		}
	}
	effects := s.loop.Handle(s.cfg.Now(), ev)
	if _, back := ev.(RootBack); back {
		s.placer.holds(s.loop.unknownHeld())
	}
	for _, e := range effects {
		switch e := e.(type) {
		case Look:
			s.lookers.add(e.Paths)
		case Propose:
			e.marker = s.marker
			s.bg.Go(func() { s.propose(ctx, e) })
		case Fetch:
			s.fetch(ctx, e)
		case Apply:
			s.sayRepairs(e)
			e.marker = s.marker
			s.lanes.add(e)
		case Record:
			s.persister.add(recordJob{marker: s.marker, updates: e.Updates})
			s.learned(ctx, e.Updates)
		case Remember:
			s.sayEdit(e)
			s.persister.add(recordJob{notes: []Remember{e}})
			s.tellHeld()
		case Follow:
			s.persister.add(recordJob{marker: s.marker, followed: e.Revision, looked: true})
		case Joined:
			s.persister.add(recordJob{marker: s.marker, joined: true})
			s.tellHeld()
		case Opened:
			s.persister.add(recordJob{opened: true})
		case Keep:
			s.keep(e)
		case Rescan:
			s.scanner.request("")
		case Wake:
			timer.Reset(max(0, e.At.Sub(s.cfg.Now())))
		}
	}
}

// tellHeld has the other nodes of a mount told whether anything is unknown here.
// Of a root that was found anew the loop may know nothing yet.
func (s *Syncer) tellHeld() {
	if s.find == s.root.finding() {
		s.placer.holds(s.loop.unknownHeld())
	}
}

// watchLog tells the loop what the log commits.
func (s *Syncer) watchLog(ctx context.Context) {
	ch, stop := s.cfg.Log.Watch()
	defer stop()
	for {
		s.readLog()
		select {
		case <-ctx.Done():
			return
		case _, ok := <-ch:
			if !ok {
				<-ctx.Done()
				return
			}
		}
	}
}

// readLog posts what was committed since the last time.
func (s *Syncer) readLog() {
	view, ok := s.cfg.Log.View(s.cfg.Tree)
	// Raft restarts at its snapshot and replays: until it has reached what this
	// disk may hold, there is no news.
	if s.afresh.Swap(false) && !s.logRead {
		s.logAt, s.began = 0, State{Joiner: true, Lost: s.began.Lost} // of another life, or a root that was given up
	}
	if !ok || view.Revision < s.logAt || !s.logRead && uint64(view.Revision) < s.floor.Load() || s.logRead && view.Revision == s.logAt {
		return
	}
	// With the records it is lost how far the disk had followed: a log that is
	// still replayed would bring back what is long gone.
	if !s.logRead && s.began.Lost && !s.cfg.Log.CaughtUp() {
		return
	}
	ev := Committed{View: view}
	commits, whole := s.cfg.Log.Since(s.cfg.Tree, s.logAt)
	ev.Jump = !whole
	if !s.logRead {
		ev.Lately = s.lately(view.Revision)
	}
	for _, c := range commits {
		if c.Revision > view.Revision {
			break // came since the view: the next time
		}
		if !s.logRead {
			c.Changes = s.news(c)
		}
		ev.Commits = append(ev.Commits, c)
	}
	s.logAt, s.logRead, s.began = view.Revision, true, State{}
	s.inbox.post(ev)
}

// lately lists what was committed up to a revision within the brake's window, as far
// as the authors' clocks tell: its count goes on where the last run's ended.
func (s *Syncer) lately(upTo manifest.Revision) (lately []manifest.Commit) {
	for _, reach := range []manifest.Revision{1000, 100} { // so many stay in the history, mostly; always
		commits, whole := s.cfg.Log.Since(s.cfg.Tree, upTo-min(upTo, reach))
		if !whole {
			continue
		}
		now, window := s.cfg.Now(), s.cfg.Loop.Window
		for _, c := range commits {
			if c.Revision <= upTo && now.Sub(time.Unix(0, c.Time)).Abs() <= window {
				lately = append(lately, c)
			}
		}
		break
	}
	return lately
}

// news are a commit's changes that are news to the state that this run began
// with. To a joiner the history of before it came says nothing: a file that was once
// committed and removed is as unknown as any other.
func (s *Syncer) news(c manifest.Commit) []manifest.Committed {
	if s.began.Joiner && !s.began.Begun {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Changes), func(ch manifest.Committed) bool {
		a, ok := s.began.Ancestors.Get(ch.Path)
		return ok && a.Revision >= c.Revision
	})
}

// Hint says that paths may differ: they are looked at.
func (s *Syncer) Hint(paths ...manifest.Path) { s.inbox.hint(paths...) }

// Rule is an operator's word on held paths; no paths: all of them. With it a
// root that has lost its marker (or is not there at all) gets a new one: after
// Restore it is filled with what is committed, and what else stands in it goes
// aside; after Approve what else stands in it is held.
func (s *Syncer) Rule(verb Verb, paths ...manifest.Path) {
	s.inbox.post(Ruling{Verb: verb, Paths: paths})
	if (verb == Approve || verb == Restore) && len(paths) == 0 {
		s.remakeRoot()
	}
}

// ask runs fn on the loop's goroutine and waits for what it returns. Where ctx
// ends first fn may still run, and nobody takes its answer.
func ask[T any](ctx context.Context, s *Syncer, fn func(*Loop) T) (answer T, err error) {
	answers := make(chan T, 1)
	s.inbox.call(func(l *Loop) { answers <- fn(l) })
	select {
	case <-ctx.Done():
		return answer, ctx.Err()
	case answer = <-answers:
		return answer, nil
	}
}

// stagedName makes a name that no run ever used before.
func (s *Syncer) stagedName() string {
	return fmt.Sprintf("%s-%d", s.stagedBy, s.names.Add(1))
}

// broadcast wakes whoever waits for the next signal.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// next returns a channel that is closed by the next signal.
func (b *broadcast) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) signal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
