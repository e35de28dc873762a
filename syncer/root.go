package syncer

import (
	"context"
	"crypto/rand"
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

const (
	// rootRetry is how often a lost root is looked for.
	rootRetry = 500 * time.Millisecond
	// rootBeat is how often a root on a mount is asked whether it is still there:
	// one call to the file server.
	rootBeat = 5 * time.Second
	// markerWatch is for how many beats a new marker is looked at: of two nodes
	// that make one at once for one directory, the last one's counts.
	markerWatch = 3
)

// ErrRootLost: the tree's root is not there or not ours; nothing is done to it
// until it is back.
var ErrRootLost = errors.New("the tree's root is lost")

// marker is what .gatesync/marker.json holds: whose tree this is.
type marker struct {
	Format     int    `json:"format"`
	Cluster    string `json:"cluster"`
	Tree       string `json:"tree"`
	Generation uint64 `json:"generation"`
	// Made names this making of the marker. The records say which one they
	// belong to: what they know of a root under any other is void.
	Made string `json:"made,omitempty"`
	// Older: it was made in place of one of an older generation.
	Older bool `json:"older,omitempty"`
	// Place is where it was written: a copy of the root has another.
	vfs.Place
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
	onLost func(why string) // must not block, nor ask the keeper
	since  uint64           // markers from this generation on are our own
	// onMake persists the name of the marker that the records belong to.
	onMake func(made string) error
	// onFound decides what the root is to us and persists it in one step, before
	// anybody works in it.
	onFound func(*rootFound) error
	kick    chan struct{} // wakes guard

	mu    sync.Mutex
	finds uint64   // how often the root was found
	watch int      // so many beats more look whether our new marker still stands there
	made  string   // the marker that the records belong to, "": not known yet
	cur   *rootGen // nil before the first successful opening
	lost  string   // why nothing may be done; "" while all is well
	bare  bool     // lost for want of a marker: approve makes a new one
}

func newRootKeeper(open func() (vfs.FS, error), want marker, log *slog.Logger) *rootKeeper {
	return &rootKeeper{
		open: open, want: want, log: log, lost: "not opened yet",
		onLost: func(string) {}, since: want.Generation, kick: make(chan struct{}, 1),
		onMake: func(string) error { return nil }, onFound: func(*rootFound) error { return nil },
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
	m, err := k.inspect(g.fs)
	k.mu.Lock()
	switch {
	case err != nil:
	case g != k.cur:
		err = errors.New("the root was opened anew meanwhile")
	case k.foreign(m.Made):
		err = errors.New("the root's marker was made anew by somebody else")
	}
	fresh := err != nil && g == k.cur && k.lost == ""
	if fresh {
		k.lost, k.bare = err.Error(), errors.Is(err, errNoMarker)
		k.onLost(k.lost) // under the lock: before anybody can say that it is back
	}
	k.mu.Unlock()
	if err == nil {
		return nil
	}
	if fresh {
		k.log.Warn("root lost: nothing is proposed or materialized until it is back", "err", err)
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
	errCopy     = errors.New("the root is a copy of another directory")
	errOlder    = errors.New("the root's marker is of an older generation than the cluster's")
)

// foreign tells whether a marker is another one than the records belong to.
// Markers and records that an older version made name none. k.mu is held.
func (k *rootKeeper) foreign(made string) bool {
	return made != "" && k.made != "" && made != k.made
}

// inspect compares the root with what it should be, and returns its marker.
func (k *rootKeeper) inspect(root vfs.FS) (m marker, err error) {
	if err := root.Check(); err != nil {
		return m, err
	}
	b, err := root.ReadMarker()
	if errors.Is(err, fs.ErrNotExist) {
		return m, errNoMarker
	}
	if err != nil {
		return m, fmt.Errorf("cannot read the root's marker: %w", err)
	}
	return inspectMarker(b, k.want, k.since)
}

// inspectMarker compares a marker's text with what it should say; since is the
// oldest generation of this life of the cluster.
func inspectMarker(b []byte, want marker, since uint64) (m marker, err error) {
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("the root's marker is damaged (%w): remove .gatesync/marker.json, then 'restore' or 'approve' the tree", err)
	}
	switch {
	case m.Format > markerFormat:
		return m, fmt.Errorf("the root's marker has format %d, this program knows %d: upgrade it", m.Format, markerFormat)
	case m.Cluster != want.Cluster:
		return m, fmt.Errorf("the root belongs to cluster %s, this node to %s: choose another directory", m.Cluster, want.Cluster)
	case m.Tree != want.Tree:
		return m, fmt.Errorf("the root belongs to tree %s, not %s: choose another directory", m.Tree, want.Tree)
	case m.Generation < since:
		return m, errOlder
	case m.Generation < want.Generation:
		return m, errOurs
	}
	return m, nil
}

// inPlace tells a root from a copy of one (errCopy): its marker says where it
// was written. One that does not (of an older version), or is of an older
// generation of ours, is written anew.
func (k *rootKeeper) inPlace(root vfs.FS, m marker, ours error) error {
	here, err := root.MarkerPlace()
	switch {
	case err != nil:
		return fmt.Errorf("cannot look at the root's marker: %w", err)
	case m.Place.Copied(here):
		return errCopy
	case ours != nil || m.Place == vfs.Place{} && here != vfs.Place{}:
		return k.writeMarker(root, m.Made, m.Older)
	}
	return nil
}

// newMarker gives the root a marker of its own. The records know of it before it
// stands there on the very first time, and never else: a crash, or a failure,
// anywhere on the way leaves a marker that says by itself whose it is.
func (k *rootKeeper) newMarker(root vfs.FS, first, older bool) (made string, err error) {
	k.mu.Lock()
	made = k.made
	k.mu.Unlock()
	switch {
	case !first && made == "": // of an older version: from now on they know that it is not the new one
		err = k.belongTo("before")
	case first && made == "":
		made = rand.Text()
		err = k.belongTo(made)
	}
	if err != nil {
		return "", err
	}
	if !first {
		made = rand.Text()
	}
	k.mu.Lock()
	k.watch = markerWatch
	k.mu.Unlock()
	return made, k.writeMarker(root, made, older)
}

func (k *rootKeeper) belongTo(made string) error {
	if err := k.onMake(made); err != nil {
		return fmt.Errorf("cannot write the tree's records: %w", err)
	}
	k.mu.Lock()
	k.made = made
	k.mu.Unlock()
	return nil
}

func (k *rootKeeper) writeMarker(root vfs.FS, made string, older bool) error {
	place, err := root.MarkerPlace()
	if err != nil {
		return fmt.Errorf("cannot make the root's marker: %w", err)
	}
	m := k.want
	m.Made, m.Older, m.Place = made, older, place
	b, err := json.MarshalIndent(m, "", "  ")
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
	reopened bool   // another directory than before
	made     string // names its marker
	find     uint64 // number of this finding
	fresh    bool   // the records belong to another marker, or to none: they say nothing about it
	older    bool   // as it had one of an older generation
}

// find looks for the root and, if it is in order, prepares it (recovers what
// an unfinished plan left) and lends it out again. first: it never had a
// marker from us; remake: a person wants it to have a new one.
func (k *rootKeeper) find(ctx context.Context, first, remake bool, prepare func(ctx context.Context, root vfs.FS, other bool) error) (rootFound, error) {
	k.mu.Lock()
	g, done := k.cur, func() {}
	if g != nil {
		_, done, _ = k.takeLocked(g)
	}
	k.mu.Unlock()
	defer func() { done() }()

	found := rootFound{gen: g}
	var trouble error
	if g != nil {
		trouble = g.fs.Check()
	}
	// What was opened may be of no use for good, although all is well at the path:
	// replaced, or stale, or of a mount that was taken away by force.
	if g == nil || trouble != nil {
		root, err := k.open()
		if err != nil && errors.Is(trouble, vfs.ErrRootMissing) {
			err = trouble // says what to do
		}
		if err != nil {
			return rootFound{}, k.still(err)
		}
		found.gen, found.reopened = &rootGen{fs: root}, true
	}
	m, err := k.inspect(found.gen.fs)
	found.made, found.older = m.Made, m.Older
	if err == nil || errors.Is(err, errOurs) {
		err = k.inPlace(found.gen.fs, m, err)
	}
	if errors.Is(err, errCopy) {
		k.log.Warn("the root is a copy of another directory: what is known of that one says nothing about it; what differs is held")
		found.made, err = k.newMarker(found.gen.fs, false, false)
	}
	if errors.Is(err, errOlder) || (first || remake) && errors.Is(err, errNoMarker) {
		found.older = errors.Is(err, errOlder)
		found.made, err = k.newMarker(found.gen.fs, first && !found.older, found.older)
	}
	news := k.judge(&found, first)
	if err == nil && prepare != nil {
		err = prepare(ctx, found.gen.fs, found.fresh || found.reopened && g != nil)
	}
	if err == nil && news {
		err = k.persist(&found)
	}
	if err != nil {
		if found.reopened {
			_ = found.gen.fs.Close()
		}
		return rootFound{}, k.still(err)
	}
	k.mu.Lock()
	k.cur, k.lost, k.bare = found.gen, "", false
	k.finds++
	found.find = k.finds
	if found.made != "" {
		k.made = found.made
	}
	if found.reopened && g != nil {
		g.old = true // closed by done, or by whoever still works in it
	}
	k.mu.Unlock()
	return found, nil
}

// judge tells whether the records say anything about a root that is in order;
// news, whether there is anything to be persisted about it.
func (k *rootKeeper) judge(found *rootFound, first bool) (news bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	named := found.made != "" && found.made != k.made
	found.fresh = k.foreign(found.made) || first && (found.made == "" || named)
	found.older = found.older && found.fresh
	return first || named
}

// finding numbers what is done in the root until it is found anew. To be asked
// before borrow.
func (k *rootKeeper) finding() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.finds
}

// name is that of the marker that the records belong to.
func (k *rootKeeper) name() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.made
}

func (k *rootKeeper) persist(found *rootFound) error {
	if err := k.onFound(found); err != nil {
		return fmt.Errorf("cannot write the tree's records: %w", err)
	}
	return nil
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
