package syncer

import (
	"context"
	"log/slog"
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
	// their receipts. Bases are hints, here and below.
	Spread(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases) ([]manifest.Receipt, error)
	// Fetch brings content into the local store and calls done once for each
	// digest, from any goroutine.
	Fetch(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases, done func(manifest.Digest, error)) error
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
	// Since: markers and records from this generation on are this node's own, and
	// taken over; 0: Generation. What is older belongs to a life of the cluster
	// that is over: nothing is known of what stands on disk.
	Since uint64
	// Aside: what an older generation left on disk and the log does not hold
	// goes aside, instead of being held.
	Aside bool

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

	// Mounts tells which nodes have the same directory; nil: nobody has this one.
	Mounts Mounts
	// Storage is what the settings say of it: StorageAuto (""), StorageLocal,
	// StorageDirect.
	Storage string
	// Nudge wakes local watchers of a shared tree when another node has changed a file.
	Nudge bool

	ScanInterval time.Duration // of the periodic scan; 0: one minute
	Reserve      int64         // bytes that stay free on the root's file system
	BootID       string        // of this boot of the machine, "" where unknown

	Logger *slog.Logger     // nil: silent
	Now    func() time.Time // nil: time.Now
}

// DefaultModeMask takes the write permission for others away, and with it all
// but the permission bits.
const DefaultModeMask = 0o775
