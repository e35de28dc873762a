package syncer

import (
	"context"
	"io"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/integration/powercut"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// steps counts everything that a node asks of its disk, its blob store, its
// record file, its carrier and its log, cuts the power at the nth step and
// lets none through after it. The decorators below name the steps. They list
// the methods of what they decorate one by one: a method that is added there
// does not compile here until it has a name.
type steps struct {
	disk *powercut.Disk
	stop context.CancelFunc // called at the cut

	mu    sync.Mutex
	at, n int
	where string // of the cut; "": not yet
	err   error
	names map[string]int
}

// Op implements errorfs.Injector.
func (s *steps) Op(op, p string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.where != "" {
		return errorfs.ErrCrashed
	}
	s.n++
	s.names[op]++
	if s.n != s.at {
		return nil
	}
	s.where = op + " " + p
	s.err = s.disk.Snapshot()
	s.stop()
	return errorfs.ErrCrashed
}

func (s *steps) cut() (where string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.where, s.err
}

// cutFS says which operations of a tree flush; the steps themselves are
// errorfs's.
type cutFS struct {
	vfs.FS
	disk *powercut.Disk
}

func (f cutFS) SyncDir(p manifest.Path) (err error) {
	f.disk.During(func() { err = f.FS.SyncDir(p) })
	return err
}

func (f cutFS) SyncFile(p manifest.Path) (err error) {
	f.disk.During(func() { err = f.FS.SyncFile(p) })
	return err
}

func (f cutFS) SyncFS() (err error) {
	f.disk.During(func() { err = f.FS.SyncFS() })
	return err
}

func (f cutFS) SyncStaging() (err error) {
	f.disk.During(func() { err = f.FS.SyncStaging() })
	return err
}

func (f cutFS) WriteMarker(b []byte) (err error) {
	f.disk.During(func() { err = f.FS.WriteMarker(b) })
	return err
}

func (f cutFS) Create(name string, mode uint32) (vfs.WFile, error) {
	w, err := f.FS.Create(name, mode)
	if err != nil {
		return nil, err
	}
	return cutWFile{w, f.disk}, nil
}

func (f cutFS) Open(p manifest.Path) (vfs.File, error) {
	g, err := f.FS.Open(p)
	if err != nil {
		return nil, err
	}
	return cutFile{g, f.disk}, nil
}

type cutWFile struct {
	vfs.WFile
	disk *powercut.Disk
}

func (w cutWFile) Sync() (err error) {
	w.disk.During(func() { err = w.WFile.Sync() })
	return err
}

type cutFile struct {
	vfs.File
	disk *powercut.Disk
}

func (f cutFile) Sync() (err error) {
	f.disk.During(func() { err = f.File.Sync() })
	return err
}

// cutBlobs decorates the node's blob store.
type cutBlobs struct {
	store *blob.Store
	*steps
}

// Put flushes nothing; and r has steps of its own.
func (b cutBlobs) Put(r io.Reader) (manifest.BlobRef, error) {
	if err := b.Op("Blobs.Put", ""); err != nil {
		return manifest.BlobRef{}, err
	}
	return b.store.Put(r)
}

func (b cutBlobs) Flush() (err error) {
	if err := b.Op("Blobs.Flush", ""); err != nil {
		return err
	}
	b.disk.During(func() { err = b.store.Flush() })
	return err
}

func (b cutBlobs) Has(d manifest.Digest) bool {
	return b.Op("Blobs.Has", d.Short()) == nil && b.store.Has(d)
}

func (b cutBlobs) Open(d manifest.Digest) (*blob.Reader, error) {
	if err := b.Op("Blobs.Open", d.Short()); err != nil {
		return nil, err
	}
	return b.store.Open(d)
}

// cutRecords decorates the record file.
type cutRecords struct {
	db database
	*steps
}

func (r cutRecords) View(fn func(*bbolt.Tx) error) error { return r.db.View(fn) }
func (r cutRecords) Close() error                        { return r.db.Close() }

// Update: ancestors, plans, conflicts and notes.
func (r cutRecords) Update(fn func(*bbolt.Tx) error) (err error) {
	if err := r.Op("Records.Update", ""); err != nil {
		return err
	}
	r.disk.During(func() { err = r.db.Update(fn) })
	if err != nil {
		return err
	}
	return r.Op("Records.Updated", "")
}

// cutLog decorates the log, which lives on: the others have it.
type cutLog struct {
	log Log
	*steps
}

func (l cutLog) View(tree string) (manifest.View, bool) { return l.log.View(tree) }

func (l cutLog) Since(tree string, after manifest.Revision) ([]manifest.Commit, bool) {
	return l.log.Since(tree, after)
}

func (l cutLog) Watch() (<-chan struct{}, func()) { return l.log.Watch() }

func (l cutLog) Propose(ctx context.Context, c manifest.Changeset) (manifest.Result, error) {
	if err := l.Op("Log.Propose", ""); err != nil {
		return manifest.Result{}, err
	}
	res, err := l.log.Propose(ctx, c)
	if err == nil {
		err = l.Op("Log.Proposed", "")
	}
	return res, err
}

// cutCarrier decorates the carrier: what it spreads lies with the others from
// then on.
type cutCarrier struct {
	own, far *blob.Store
	carrier  Carrier
	*steps
}

func (c cutCarrier) Spread(ctx context.Context, blobs []manifest.BlobRef) ([]manifest.Receipt, error) {
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

func (c cutCarrier) Fetch(ctx context.Context, blobs []manifest.BlobRef, done func(manifest.Digest, error)) error {
	if err := c.Op("Carrier.Fetch", ""); err != nil {
		return err
	}
	return c.carrier.Fetch(ctx, blobs, func(d manifest.Digest, err error) {
		if err == nil {
			err = c.Op("Carrier.Fetched", d.Short())
		}
		done(d, err)
	})
}
