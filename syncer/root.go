package syncer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/gatesync/gatesync/vfs"
)

// markerFormat is the newest marker that this program understands.
const markerFormat = 1

// rootRetry is how often a lost root is looked for.
const rootRetry = 500 * time.Millisecond

// ErrRootLost: the tree's root is not there or not ours; nothing is done to it
// until it is back.
var ErrRootLost = errors.New("the tree's root is lost")

// marker is what .gatesync/marker.json holds: whose tree this is.
type marker struct {
	Format     int    `json:"format"`
	Cluster    string `json:"cluster"`
	Tree       string `json:"tree"`
	Generation uint64 `json:"generation"`
}

// rootGen is one opening of the root. It is closed when it has been replaced
// and the last user has let go of it.
type rootGen struct {
	fs    vfs.FS
	users int
	old   bool
}

// rootKeeper holds the root and whether it may be worked in. Everything that
// touches the tree borrows the root from here, so that a root that was
// replaced (a remount) can be opened again under the feet of nobody. No lock
// is held across a call into the file system.
type rootKeeper struct {
	open   func() (vfs.FS, error)
	want   marker
	log    *slog.Logger
	onLost func(why string)
	since  uint64 // markers from this generation on are our own
	// onFresh persists that nothing is known any more, before a new marker says
	// so; older tells that the root has one of an older generation.
	onFresh func(older bool) error
	kick    chan struct{} // wakes guard

	mu   sync.Mutex
	cur  *rootGen // nil before the first successful opening
	lost string   // why nothing may be done; "" while all is well
	bare bool     // lost for want of a marker: approve makes a new one
}

func newRootKeeper(open func() (vfs.FS, error), want marker, log *slog.Logger) *rootKeeper {
	return &rootKeeper{
		open: open, want: want, log: log, lost: "not opened yet",
		onLost: func(string) {}, onFresh: func(bool) error { return nil }, since: want.Generation, kick: make(chan struct{}, 1),
	}
}

// borrow hands out the root for one piece of work; done gives it back.
func (k *rootKeeper) borrow() (g *rootGen, done func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lost != "" {
		return nil, nil, fmt.Errorf("%w: %s", ErrRootLost, k.lost)
	}
	return k.takeLocked(k.cur)
}

func (k *rootKeeper) takeLocked(g *rootGen) (*rootGen, func(), error) {
	g.users++
	return g, func() {
		k.mu.Lock()
		g.users--
		last := g.old && g.users == 0
		k.mu.Unlock()
		if last {
			if err := g.fs.Close(); err != nil {
				k.log.Warn("cannot close the old root", "err", err)
			}
		}
	}, nil
}

// verify makes sure that g is still the root and carries our marker. If it is
// not, the root is lost for everybody.
func (k *rootKeeper) verify(g *rootGen) error {
	err := k.inspect(g.fs)
	k.mu.Lock()
	if g != k.cur && err == nil {
		err = errors.New("the root was opened anew meanwhile")
	}
	fresh := err != nil && g == k.cur && k.lost == ""
	if fresh {
		k.lost, k.bare = err.Error(), errors.Is(err, errNoMarker)
	}
	k.mu.Unlock()
	if err == nil {
		return nil
	}
	if fresh {
		k.log.Warn("root lost: nothing is proposed or materialized until it is back", "err", err)
		k.onLost(err.Error())
		select {
		case k.kick <- struct{}{}:
		default:
		}
	}
	return fmt.Errorf("%w: %w", ErrRootLost, err)
}

var (
	errNoMarker = errors.New("the root has no marker (.gatesync/marker.json): it was emptied, or nothing is mounted there: put it back; or 'restore' to fill this directory anew; or 'approve' to take it as it is (what is unknown in it is held)")
	errOurs     = errors.New("the root's marker is of this node, from before the cluster's new life")
	errOlder    = errors.New("the root's marker is of an older generation than the cluster's")
)

// inspect compares the root with what it should be.
func (k *rootKeeper) inspect(root vfs.FS) error {
	if err := root.Check(); err != nil {
		return err
	}
	b, err := root.ReadMarker()
	if errors.Is(err, fs.ErrNotExist) {
		return errNoMarker
	}
	if err != nil {
		return fmt.Errorf("cannot read the root's marker: %w", err)
	}
	return inspectMarker(b, k.want, k.since)
}

// inspectMarker compares a marker's text with what it should say; since is the
// oldest generation of this life of the cluster.
func inspectMarker(b []byte, want marker, since uint64) error {
	var m marker
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("the root's marker is damaged (%w): remove .gatesync/marker.json, then 'restore' or 'approve' the tree", err)
	}
	switch {
	case m.Format > markerFormat:
		return fmt.Errorf("the root's marker has format %d, this program knows %d: upgrade it", m.Format, markerFormat)
	case m.Cluster != want.Cluster:
		return fmt.Errorf("the root belongs to cluster %s, this node to %s: choose another directory", m.Cluster, want.Cluster)
	case m.Tree != want.Tree:
		return fmt.Errorf("the root belongs to tree %s, not %s: choose another directory", m.Tree, want.Tree)
	case m.Generation < since:
		return errOlder
	case m.Generation < want.Generation:
		return errOurs
	}
	return nil
}

func (k *rootKeeper) writeMarker(root vfs.FS) error {
	b, err := json.MarshalIndent(k.want, "", "  ")
	if err != nil {
		return err
	}
	if err := root.WriteMarker(append(b, '\n')); err != nil {
		return fmt.Errorf("cannot write the root's marker: %w", err)
	}
	return nil
}

// rootFound is how an attempt to find the root ended well.
type rootFound struct {
	gen      *rootGen
	reopened bool // another directory than before
	fresh    bool // its marker was made now: the ancestor says nothing about it
	older    bool // as it had one of an older generation
}

// find looks for the root and, if it is in order, prepares it (recovers what
// an unfinished plan left) and lends it out again. first allows a root without
// a marker to get one.
func (k *rootKeeper) find(ctx context.Context, first bool, prepare func(context.Context, vfs.FS) error) (rootFound, error) {
	k.mu.Lock()
	g, done := k.cur, func() {}
	if g != nil {
		_, done, _ = k.takeLocked(g)
	}
	k.mu.Unlock()
	defer func() { done() }()

	found := rootFound{gen: g}
	if g == nil || errors.Is(g.fs.Check(), vfs.ErrRootReplaced) {
		root, err := k.open()
		if err != nil {
			return rootFound{}, k.still(err)
		}
		found.gen, found.reopened = &rootGen{fs: root}, true
	}
	err := k.inspect(found.gen.fs)
	if errors.Is(err, errOurs) {
		err = k.writeMarker(found.gen.fs)
	}
	if errors.Is(err, errOlder) || first && errors.Is(err, errNoMarker) {
		found.fresh, found.older = true, errors.Is(err, errOlder)
		if err = k.onFresh(found.older); err == nil {
			err = k.writeMarker(found.gen.fs)
		}
	}
	if err == nil && prepare != nil {
		err = prepare(ctx, found.gen.fs)
	}
	if err != nil {
		if found.reopened {
			_ = found.gen.fs.Close()
		}
		return rootFound{}, k.still(err)
	}
	k.mu.Lock()
	k.cur, k.lost, k.bare = found.gen, "", false
	if found.reopened && g != nil {
		g.old = true // closed by done, or by whoever still works in it
	}
	k.mu.Unlock()
	return found, nil
}

// still records why the root is lost, as far as we know today.
func (k *rootKeeper) still(err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lost, k.bare = err.Error(), errors.Is(err, errNoMarker)
	return fmt.Errorf("%w: %w", ErrRootLost, err)
}

// state tells why the root is lost, "" if it is not.
func (k *rootKeeper) state() (lost string, bare bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lost, k.bare
}

// close lets go of the root. Nobody may borrow it any more.
func (k *rootKeeper) close() error {
	k.mu.Lock()
	g := k.cur
	k.cur, k.lost = nil, "closed"
	k.mu.Unlock()
	if g == nil {
		return nil
	}
	return g.fs.Close()
}

// guardRoot looks for a lost root until it is back. One goroutine of Run.
func (s *Syncer) guardRoot(ctx context.Context) {
	said := ""
	timer := time.NewTimer(rootRetry)
	defer timer.Stop()
	for {
		if lost, _ := s.root.state(); lost == "" {
			select {
			case <-ctx.Done():
				return
			case <-s.root.kick:
			}
			continue
		}
		found, err := s.root.find(ctx, s.remake.Swap(false) || s.first.Load(), s.recoverStaging)
		if err == nil {
			err = s.rooted(&found)
		}
		if err == nil {
			said = ""
			s.log.Info("root is back", "reopened", found.reopened, "new_marker", found.fresh)
			s.watcher.reset(found.gen.fs)
			if found.fresh {
				s.floor.Store(0) // nothing counts any more that was agreed on
				s.reached.Store(0)
				s.afresh.Store(true)
			}
			s.inbox.post(RootBack{Fresh: found.fresh, Aside: found.older && s.cfg.Aside})
			s.scanner.request("")
			continue
		}
		if why := err.Error(); why != said {
			said = why
			lost, _ := s.root.state()
			s.inbox.post(RootLost{Why: lost})
		}
		timer.Reset(rootRetry)
		select {
		case <-ctx.Done():
			return
		case <-s.root.kick:
		case <-timer.C:
		}
	}
}

// remakeRoot gives a root that has lost its marker a new one, on a person's
// word. Everything on its disk is unknown from then on.
func (s *Syncer) remakeRoot() {
	if _, bare := s.root.state(); !bare {
		return
	}
	s.remake.Store(true)
	select {
	case s.root.kick <- struct{}{}:
	default:
	}
}
