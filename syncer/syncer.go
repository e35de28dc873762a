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

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// Blobs is the node's own store of content, as the syncer uses it.
// *blob.Store implements it.
type Blobs interface {
	PutContent
	Flush() error
	Has(manifest.Digest) bool
	Open(manifest.Digest) (*blob.Reader, error)
}

// Carrier moves content between the nodes' stores.
type Carrier interface {
	// Spread makes content durable on a majority of the voters and returns
	// their receipts.
	Spread(ctx context.Context, blobs []manifest.BlobRef) ([]manifest.Receipt, error)
	// Fetch brings content into the local store and calls done once for each
	// digest, from any goroutine.
	Fetch(ctx context.Context, blobs []manifest.BlobRef, done func(manifest.Digest, error)) error
}

// Log is the order of the writes.
type Log interface {
	// View is the tree as committed; ok is false while the log does not know it.
	View(tree string) (v manifest.View, ok bool)
	// Since lists what was committed after a revision, oldest first; ok is
	// false where history does not reach back that far.
	Since(tree string, after manifest.Revision) (commits []manifest.Commit, ok bool)
	Propose(ctx context.Context, c manifest.Changeset) (manifest.Result, error)
	// CaughtUp tells whether everything was read that was committed before this
	// node started; Watch tells when it comes true.
	CaughtUp() bool
	// Watch returns a channel that holds a token after a change; stop ends it.
	Watch() (ch <-chan struct{}, stop func())
}

// Config is what a Syncer is made of.
type Config struct {
	Self string // id of this node
	Tree string // name of the tree

	// What the root's marker must say.
	ClusterID  string
	TreeID     string
	Generation uint64

	// OpenRoot opens the root. It is called again after the root was replaced
	// by another directory (a remount). The Syncer closes what it opened.
	OpenRoot func() (vfs.FS, error)
	Records  string // path of the record file, made if missing

	Blobs   Blobs
	Carrier Carrier
	Log     Log

	Ignore   *manifest.Ignore
	ModeMask uint32 // permission bits that are replicated; 0: DefaultModeMask

	// Joiner: on the very first Open what stands on disk is unknown to the
	// cluster and is held back. (Later openings remember by themselves.)
	Joiner bool
	// Loop tunes the decisions; Self and Tree are filled in. The zero value
	// means DefaultLoopConfig.
	Loop LoopConfig

	ScanInterval time.Duration // of the periodic scan; 0: one minute
	Reserve      int64         // bytes that stay free on the root's file system
	BootID       string        // of this boot of the machine, "" where unknown

	Logger *slog.Logger     // nil: silent
	Now    func() time.Time // nil: time.Now
}

// DefaultModeMask takes the write permission for others away, and with it all
// but the permission bits.
const DefaultModeMask = 0o775

// Syncer is the executor of one tree's Loop.
//
// One goroutine owns the Loop and does nothing slow: it hands events in and
// effects out. Lookers, scanner, watcher, persister, proposals, fetches and
// the two materializing lanes run beside it and answer through the inbox. All
// of them live inside Run.
type Syncer struct {
	cfg   Config
	log   *slog.Logger
	inbox *inbox
	loop  *Loop // owned by Run's loop goroutine
	rec   *records
	root  *rootKeeper

	persister  *persister
	lookers    *lookers
	scanner    *scanner
	watcher    *watcher
	lanes      lanes
	quarantine *quarantine
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
	logRead  bool
	began    State         // that this run began with, until the log was read once
	names    atomic.Uint64 // of staged names in this run
	stagedBy string        // prefix of staged names, unique to this run
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
		adopt, rank, limit := cfg.Loop.Adopt, cfg.Loop.Rank, cfg.Loop.MaxDelete
		cfg.Loop = DefaultLoopConfig(cfg.Self, cfg.Tree)
		cfg.Loop.Adopt, cfg.Loop.Rank = adopt, rank
		if limit != (manifest.DeleteLimit{}) {
			cfg.Loop.MaxDelete = limit
		}
	}
	cfg.Loop.Self, cfg.Loop.Tree = cfg.Self, cfg.Tree

	s := &Syncer{
		cfg: cfg, log: cfg.Logger.With("tree", cfg.Tree), inbox: newInbox(),
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
	s.root.onLost = func(why string) { s.inbox.post(RootLost{Why: why}) }
	s.persister = newPersister(rec, s.root, s.log)
	s.lookers = newLookers(s)
	s.scanner = newScanner(s)
	s.watcher = newWatcher(s)
	s.lanes = newLanes()
	s.quarantine = newQuarantine()
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
	if s.rec.fresh && s.cfg.Joiner {
		known.state.Joiner = true
		if err := s.rec.setMeta(map[string][]byte{metaJoiner: {1}}); err != nil {
			return err
		}
	}
	s.first.Store(!known.rooted)
	s.root.onFresh = func() error {
		if s.first.Load() {
			return nil // the first marker of a new tree: nothing was known before
		}
		return s.rec.forgetAll()
	}
	found, err := s.root.find(context.Background(), s.first.Load(), s.recoverStaging)
	switch {
	case errors.Is(err, ErrRootLost):
		s.log.Warn("the root cannot be used yet", "err", err)
	case err != nil:
		return err
	default:
		if err := s.rooted(&found); err != nil {
			return err
		}
		s.found, s.foundOK = found, true
		if found.fresh { // what was known until now is void
			if known, err = s.rec.load(s.cfg.BootID); err != nil {
				return err
			}
		}
	}
	if err := s.rec.setMeta(map[string][]byte{metaBoot: []byte(s.cfg.BootID)}); err != nil {
		return err
	}
	s.logAt = known.state.Followed
	s.began = known.state
	if known.state.Ancestors != nil {
		s.began.Ancestors = known.state.Ancestors.Clone()
	}
	s.loop = NewLoop(s.cfg.Loop, known.state)
	return nil
}

// rooted notes that the root was found in order. On the very first time it
// decides what the disk is: with a marker that was made just now it is a new
// tree, as the configuration says; with one that stood there already the
// records are lost, and everything on disk is unknown.
func (s *Syncer) rooted(found *rootFound) error {
	if !s.first.CompareAndSwap(true, false) {
		return nil
	}
	meta := map[string][]byte{metaRooted: {1}}
	if found.fresh {
		found.fresh = false
	} else {
		found.fresh = true
		meta[metaJoiner] = []byte{1}
	}
	return s.rec.setMeta(meta)
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
		s.watcher.reset(s.found.gen.fs.Path())
		s.inbox.post(RootBack{Fresh: s.found.fresh})
	} else {
		lost, _ := s.root.state()
		s.inbox.post(RootLost{Why: lost})
	}
	s.foundOK = false

	var wg sync.WaitGroup
	for _, fn := range []func(context.Context){
		s.guardRoot, s.watchLog, s.watcher.run, s.scanner.run, s.lookers.run,
		s.runSmallLane, s.runBigLane, s.runQuarantine,
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
	for _, e := range s.loop.Handle(s.cfg.Now(), ev) {
		switch e := e.(type) {
		case Look:
			s.lookers.add(e.Paths)
		case Propose:
			s.bg.Go(func() { s.propose(ctx, e) })
		case Fetch:
			s.fetch(ctx, e)
		case Apply:
			s.lanes.add(e)
		case Record:
			s.persister.add(recordJob{updates: e.Updates})
		case Remember:
			s.persister.add(recordJob{notes: []Remember{e}})
		case Follow:
			s.persister.add(recordJob{followed: e.Revision})
		case Joined:
			s.persister.add(recordJob{joined: true})
		case Rescan:
			s.scanner.request("")
		case Wake:
			timer.Reset(max(0, e.At.Sub(s.cfg.Now())))
		}
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
	// disk has followed, there is no news.
	if !ok || view.Revision < s.logAt || s.logRead && view.Revision == s.logAt {
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

// news are a commit's changes that are news to the state that this run began
// with. To a joiner history says nothing: a file that was once committed and
// removed is as unknown as any other.
func (s *Syncer) news(c manifest.Commit) []manifest.Committed {
	if s.began.Joiner {
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

// ask runs fn on the loop's goroutine and waits for it.
func (s *Syncer) ask(ctx context.Context, fn func(*Loop)) error {
	done := make(chan struct{})
	s.inbox.call(func(l *Loop) { fn(l); close(done) })
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return nil
	}
}

// ancestor returns a copy of the loop's ancestor.
func (s *Syncer) ancestor(ctx context.Context) (m *AncestorMap, err error) {
	err = s.ask(ctx, func(l *Loop) { m = l.Ancestor() })
	return m, err
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
