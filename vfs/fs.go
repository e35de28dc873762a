package vfs

import (
	"io"

	"github.com/gatesync/gatesync/manifest"
)

// FS is everything that can be done to one tree. *Root implements it on a
// disk, errorfs.FS on top of another FS. Take one of its parts where that is
// enough. All paths are relative to the root; "" is the root itself where a
// method says so.
//
// Errors are *fs.PathError. What is not there, or lies below something that is
// no directory, is fs.ErrNotExist to errors.Is.
type FS interface {
	Looker
	Stager
	Mover
	Flusher
	Marker
	Shared

	// Check tells whether the root's path still names the opened directory:
	// ErrRootMissing, ErrRootReplaced.
	Check() error
	// Free tells how many bytes an unprivileged writer may still take.
	Free() (int64, error)
	// Capabilities tells what OpenRoot found to work here.
	Capabilities() Capabilities
	// Path is the root's own absolute path, for people and the watcher.
	Path() string
	Close() error
}

// Looker reads the tree.
type Looker interface {
	// Lstat tells what stands at p; "" is the root.
	Lstat(p manifest.Path) (Stat, error)
	// ReadDir lists a directory ("" is the root) in the order of names.
	// Names that vanish meanwhile are left out, and so is the root's
	// MarkerDir. ErrNotDir where p is something else.
	ReadDir(p manifest.Path) ([]Entry, error)
	// Readlink returns a symlink's target; ErrNotSymlink.
	Readlink(p manifest.Path) (string, error)
	// Open opens a regular file for reading: ErrNotRegular for anything else,
	// ErrWriter where another process's write lease keeps us out.
	Open(p manifest.Path) (File, error)
}

// Stager works in the staging directory. Names are single elements, made by
// the caller, who sees to it that they are his alone.
type Stager interface {
	// Create makes a file with exactly this mode; fs.ErrExist.
	Create(name string, mode uint32) (WFile, error)
	// StageLink makes a symlink; fs.ErrExist.
	StageLink(name, target string) error
	StatStaged(name string) (Stat, error)
	// OpenStaged is Open in the staging directory. A file whose mode keeps its
	// owner, us, from reading it is made readable: what came out of the tree is
	// no gateway's any more.
	OpenStaged(name string) (File, error)
	ReadlinkStaged(name string) (string, error)
	// RemoveStaged removes a file, a symlink or an empty directory.
	RemoveStaged(name string) error
	// ListStaged names what is there, in order, leftovers of earlier runs included.
	ListStaged() ([]string, error)
	// SyncStaging flushes the staging directory's names.
	SyncStaging() error
}

// Mover changes the tree. None of these flushes.
type Mover interface {
	// Exchange swaps, in one instant, what is staged with what stands at p,
	// whatever kinds the two are: the caller looks at what came out.
	// ErrNoExchange where the filesystem cannot; fs.ErrNotExist where either
	// is missing.
	Exchange(name string, p manifest.Path) error
	// Place moves what is staged to p, where nothing may stand: fs.ErrExist.
	Place(name string, p manifest.Path) error
	// Replace moves what is staged over p, whatever file stands there. It is
	// for filesystems without Exchange, after LinkOut: what was written to p
	// in between is lost.
	Replace(name string, p manifest.Path) error
	// TakeOut moves a file or a symlink out of the tree under a staged name
	// that nothing has; fs.ErrExist. ErrIsDir for a directory.
	TakeOut(p manifest.Path, name string) error
	// LinkOut gives the file or symlink at p a second, staged name; fs.ErrExist.
	LinkOut(p manifest.Path, name string) error
	// Mkdir makes a directory with this mode, whatever the umask, and a setgid
	// bit that it inherits; fs.ErrExist.
	Mkdir(p manifest.Path, mode uint32) error
	// Rmdir removes an empty directory: ErrNotEmpty, ErrNotDir.
	Rmdir(p manifest.Path) error
	// Chmod sets the mode of a file or directory, if that is still the inode
	// of expect: ErrChanged.
	Chmod(p manifest.Path, expect Stat, mode uint32) error
}

// Flusher makes durable.
type Flusher interface {
	// SyncDir flushes a directory's names; "" is the root.
	SyncDir(p manifest.Path) error
	// SyncFile flushes a regular file's content and metadata.
	SyncFile(p manifest.Path) error
	// SyncFS flushes everything on the root's filesystem: cheaper than many
	// SyncFile.
	SyncFS() error
}

// Marker is the file that says whose the root is. vfs does not read into it.
type Marker interface {
	// ReadMarker returns .gatesync/marker.json of the opened directory; fs.ErrNotExist.
	ReadMarker() ([]byte, error)
	// WriteMarker replaces it, atomically and flushed.
	WriteMarker(content []byte) error
	// MarkerPlace tells which directory it lies in, or will: .gatesync is made
	// where there is none.
	MarkerPlace() (Place, error)
}

// Shared is what a root needs that other machines may have too: looks past the
// caches of a network filesystem, and short notes beside the tree that nodes
// leave for each other.
type Shared interface {
	// Refresh makes the next look at names in the directory p a look at what is
	// there now: a name that was looked up before it existed would stay absent.
	Refresh(p manifest.Path) error
	// OpenFresh is Open, and what is read comes from the server.
	OpenFresh(p manifest.Path) (File, error)
	// ReadNote returns the note of a name, as it stands now; fs.ErrNotExist.
	ReadNote(name string) ([]byte, error)
	// WriteNote replaces it, atomically. It is not flushed.
	WriteNote(name string, content []byte) error
	// ListNotes lists the names of notes with a prefix, in order.
	ListNotes(prefix string) ([]string, error)
	// RemoveNote removes a note; one that is not there is removed.
	RemoveNote(name string) error
	// Stagers lists the other nodes that have a staging directory beside this one's.
	Stagers() ([]string, error)
	// StagedBy lists what another node has staged; fs.ErrNotExist.
	StagedBy(node string) ([]string, error)
	// TakeOver moves it into this node's staging directory, under another name: the
	// other one, should it still be about to put it in place, cannot any more.
	TakeOver(node, name, as string) error
	// DropStager removes another node's staging directory: ErrNotEmpty.
	DropStager(node string) error
	// Nudge wakes who watches the file p on this machine, and changes nothing.
	Nudge(p manifest.Path) error
}

// File is a regular file that is open for reading. One goroutine reads, leases
// and closes; ReadAt and Stat may run beside that.
type File interface {
	io.Reader
	io.ReaderAt
	// Stat tells about the opened inode, wherever it stands by now.
	Stat() (Stat, error)
	// Lease takes a read lease: ErrWriter while somebody has the file open
	// for writing, ErrNoLease where leases do not work. At most one at a time
	// per File; Close releases it.
	Lease() (Lease, error)
	// Sync flushes content and metadata, although the file is open for reading only.
	Sync() error
	Fd() uintptr
	Close() error
}

// WFile is a staged file that is being written, by one goroutine.
type WFile interface {
	io.Writer
	Sync() error
	Chmod(mode uint32) error
	// Chtimes sets the mtime (Unix nanoseconds). It has to come after the last
	// Write.
	Chtimes(mtime int64) error
	Stat() (Stat, error)
	// Close does not flush.
	Close() error
}

// Lease is a read lease that was granted. Its methods may be called from any
// goroutine.
type Lease interface {
	// Intact tells whether nobody has asked to write since. It asks the kernel.
	Intact() bool
	// Release gives the lease back and tells whether it was Intact until then.
	// A second call tells the same.
	Release() (intact bool)
}

// Capabilities says what works on a root. It is found out once, by OpenRoot.
type Capabilities struct {
	Exchange bool // RENAME_EXCHANGE; without it Exchange is ErrNoExchange
	Leases   bool // read leases on files of our own
	Reflink  bool // FICLONE: copies that share their blocks
}
