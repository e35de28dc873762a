package syncer

import (
	"context"
	"io"
	"sync"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/sealed"
	"github.com/gatesync/gatesync/vfs"
)

// steps counts everything that a node asks of its disk, its blob store, its
// record file, its carrier and its log, and strikes at the nth. The decorators
// below name the steps. They list the methods of what they decorate one by one:
// a method that is added there does not compile here until it has a name.
type steps struct {
	at     int
	strike func() error // at the nth step, once; its error is the step's
	after  error        // of every step that comes later
	during func(func()) // around what may flush

	mu    sync.Mutex
	n     int
	where string // it struck; "": not yet
}

// Op implements errorfs.Injector.
func (s *steps) Op(op, p string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.where != "" {
		return s.after
	}
	s.n++
	if s.n != s.at {
		return nil
	}
	s.where = op + " " + p
	return s.strike()
}

func (s *steps) struck() (where string, counted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.where, s.n
}

// stepFS says which operations of a tree flush; the steps themselves are
// errorfs's.
type stepFS struct {
	vfs.FS
	during func(func())
}

func (f stepFS) SyncDir(p manifest.Path) (err error) {
	f.during(func() { err = f.FS.SyncDir(p) })
	return err
}

func (f stepFS) SyncFile(p manifest.Path) (err error) {
	f.during(func() { err = f.FS.SyncFile(p) })
	return err
}

func (f stepFS) SyncFS() (err error) {
	f.during(func() { err = f.FS.SyncFS() })
	return err
}

func (f stepFS) SyncStaging() (err error) {
	f.during(func() { err = f.FS.SyncStaging() })
	return err
}

func (f stepFS) WriteMarker(b []byte) (err error) {
	f.during(func() { err = f.FS.WriteMarker(b) })
	return err
}

func (f stepFS) Create(name string, mode uint32) (vfs.WFile, error) {
	w, err := f.FS.Create(name, mode)
	if err != nil {
		return nil, err
	}
	return stepWFile{w, f.during}, nil
}

func (f stepFS) Open(p manifest.Path) (vfs.File, error) {
	g, err := f.FS.Open(p)
	if err != nil {
		return nil, err
	}
	return stepFile{g, f.during}, nil
}

type stepWFile struct {
	vfs.WFile
	during func(func())
}

func (w stepWFile) Sync() (err error) {
	w.during(func() { err = w.WFile.Sync() })
	return err
}

type stepFile struct {
	vfs.File
	during func(func())
}

func (f stepFile) Sync() (err error) {
	f.during(func() { err = f.File.Sync() })
	return err
}

// stepBlobs decorates the node's blob store.
type stepBlobs struct {
	store *blob.Store
	*steps
}

// Put flushes nothing; and r has steps of its own.
func (b stepBlobs) Put(r io.Reader) (manifest.BlobRef, error) {
	if err := b.Op("Blobs.Put", ""); err != nil {
		return manifest.BlobRef{}, err
	}
	return b.store.Put(r)
}

func (b stepBlobs) Flush() (err error) {
	if err := b.Op("Blobs.Flush", ""); err != nil {
		return err
	}
	b.during(func() { err = b.store.Flush() })
	return err
}

func (b stepBlobs) Has(d manifest.Digest) bool {
	return b.Op("Blobs.Has", d.Short()) == nil && b.store.Has(d)
}

func (b stepBlobs) Open(d manifest.Digest) (*blob.Reader, error) {
	if err := b.Op("Blobs.Open", d.Short()); err != nil {
		return nil, err
	}
	return b.store.Open(d)
}

// stepRecords decorates the record file.
type stepRecords struct {
	db database
	*steps
}

func (r stepRecords) View(fn func(*sealed.Tx) error) error { return r.db.View(fn) }
func (r stepRecords) Close() error                         { return r.db.Close() }

// Update: ancestors, plans, conflicts and notes.
func (r stepRecords) Update(fn func(*sealed.Tx) error) (err error) {
	if err := r.Op("Records.Update", ""); err != nil {
		return err
	}
	r.during(func() { err = r.db.Update(fn) })
	if err != nil {
		return err
	}
	return r.Op("Records.Updated", "")
}

// stepLog decorates the log, which lives on: the others have it.
type stepLog struct {
	log Log
	*steps
}

func (l stepLog) View(tree string) (manifest.View, bool) { return l.log.View(tree) }

func (l stepLog) Since(tree string, after manifest.Revision) ([]manifest.Commit, bool) {
	return l.log.Since(tree, after)
}

func (l stepLog) CaughtUp() bool { return l.log.CaughtUp() }

func (l stepLog) Watch() (<-chan struct{}, func()) { return l.log.Watch() }

func (l stepLog) Propose(ctx context.Context, c manifest.Changeset) (manifest.Result, error) {
	if err := l.Op("Log.Propose", ""); err != nil {
		return manifest.Result{}, err
	}
	res, err := l.log.Propose(ctx, c)
	if err == nil {
		err = l.Op("Log.Proposed", "")
	}
	return res, err
}

// stepCarrier decorates the carrier: what it spreads lies with the others from
// then on.
type stepCarrier struct {
	own, far *blob.Store
	carrier  Carrier
	*steps
}

func (c stepCarrier) Spread(ctx context.Context, blobs []manifest.BlobRef, _ manifest.Bases) ([]manifest.Receipt, error) {
	if err := c.Op("Carrier.Spread", ""); err != nil {
		return nil, err
	}
	for _, ref := range blobs {
		if err := fetchFrom([]*blob.Store{c.own}, c.far, ref); err != nil {
			return nil, err
		}
	}
	return nil, c.Op("Carrier.Receipts", "")
}

func (c stepCarrier) Fetch(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases, done func(manifest.Digest, error)) error {
	if err := c.Op("Carrier.Fetch", ""); err != nil {
		return err
	}
	return c.carrier.Fetch(ctx, blobs, bases, func(d manifest.Digest, err error) {
		if err == nil {
			err = c.Op("Carrier.Fetched", d.Short())
		}
		done(d, err)
	})
}
