package checkout

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/manifest"
)

// stageName is where entries wait inside of the directory. No deployer picks
// a name like this up, and no tree holds one.
const stageName = manifest.MarkerDir + "-materialize"

// NotEmptyError: the directory holds something.
type NotEmptyError struct{ Dir, Name string }

func (e *NotEmptyError) Error() string {
	return fmt.Sprintf("%s is not empty (it holds %q), and nothing is overwritten: name a directory that is empty or does not exist", e.Dir, e.Name)
}

// BusyError: somebody else fills the directory.
type BusyError struct{ Dir string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("another gatesync fills %s just now: wait for it, or name another directory", e.Dir)
}

// ContentError: what was to be a file's content has another digest.
type ContentError struct {
	Path      manifest.Path
	Want, Got manifest.BlobRef
}

func (e *ContentError) Error() string {
	return fmt.Sprintf("%s: its content is %s of %d bytes, not %s of %d", e.Path, e.Got.Digest.Short(), e.Got.Size, e.Want.Digest.Short(), e.Want.Size)
}

// Dir is a directory that is being filled: Open, Put for each entry, then
// Commit, or Abort.
type Dir struct {
	path  string
	made  bool // it did not exist
	root  *os.Root
	self  *os.File // the directory, held open: the lock, the moves, the flush
	stage *os.Root
	dirs  []dirMode // in the order of Put: parents first
}

type dirMode struct {
	path manifest.Path
	mode fs.FileMode
}

// Open makes the directory if it is missing, and refuses one that holds
// anything but what an attempt that was interrupted has left.
func Open(dir string) (_ *Dir, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	d := &Dir{path: dir}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		d.made = true
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := d.open(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *Dir) open() (err error) {
	if d.root, err = os.OpenRoot(d.path); err != nil {
		return err
	}
	if d.self, err = d.root.Open("."); err != nil {
		return err
	}
	// Where the filesystem has no locks two at once meet at the move at the latest.
	if err := unix.Flock(int(d.self.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return &BusyError{d.path}
	}
	names, err := d.self.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != stageName {
			return &NotEmptyError{d.path, name}
		}
	}
	if err := d.root.RemoveAll(stageName); err != nil {
		return fmt.Errorf("remove what an interrupted attempt has left: %w", err)
	}
	if err := d.root.Mkdir(stageName, 0o700); err != nil {
		return err
	}
	d.stage, err = d.root.OpenRoot(stageName)
	return err
}

// Path is the directory's absolute path.
func (d *Dir) Path() string { return d.path }

// Put stages one entry; parents come before what stands in them. content is
// read to its end, for a file only. After an error nothing stands at p.
func (d *Dir) Put(p manifest.Path, e manifest.Entry, content io.Reader) error {
	if err := e.ValidateAt(p); err != nil { // also what a damaged log may say
		return err
	}
	switch e.Kind {
	case manifest.Dir:
		d.dirs = append(d.dirs, dirMode{p, fs.FileMode(e.Mode)})
		return d.stage.Mkdir(string(p), 0o700)
	case manifest.Symlink:
		return d.stage.Symlink(e.Target, string(p))
	}
	err := d.putFile(p, e, content)
	if err != nil {
		err = errors.Join(err, ignoreMissing(d.stage.Remove(string(p))))
	}
	return err
}

func (d *Dir) putFile(p manifest.Path, e manifest.Entry, content io.Reader) (err error) {
	f, err := d.stage.OpenFile(string(p), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := manifest.NewHasher()
	n, err := io.Copy(io.MultiWriter(f, h), content)
	if err != nil {
		return err
	}
	if got := (manifest.BlobRef{Digest: h.Digest(), Size: n}); got != e.Blob() {
		return &ContentError{Path: p, Want: e.Blob(), Got: got}
	}
	if err := f.Chmod(fs.FileMode(e.Mode)); err != nil {
		return err
	}
	// Gateways compare times: those that the tree had need no redeployment.
	at := time.Unix(0, e.MTime)
	return d.stage.Chtimes(string(p), at, at)
}

// Commit flushes what was staged and moves it into place. After an error the
// directory may hold a part of it.
func (d *Dir) Commit() error {
	if err := d.flush(); err != nil {
		return err
	}
	if err := d.moveAll(); err != nil {
		return err
	}
	// Only now: a directory that must not be written to could not have been
	// filled, nor moved.
	for _, dm := range slices.Backward(d.dirs) {
		if err := d.root.Chmod(string(dm.path), dm.mode); err != nil {
			return err
		}
	}
	if err := errors.Join(d.stage.Close(), d.root.Remove(stageName)); err != nil {
		return err
	}
	return errors.Join(d.flush(), d.close())
}

func (d *Dir) moveAll() error {
	list, err := d.stage.Open(".")
	if err != nil {
		return err
	}
	defer list.Close()
	names, err := list.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := d.moveNew(int(list.Fd()), name); err != nil {
			return fmt.Errorf("move %s into place: %w", name, err)
		}
	}
	return nil
}

// moveNew moves an entry out of the stage and replaces nothing.
func (d *Dir) moveNew(stage int, name string) error {
	err := unix.Renameat2(stage, name, int(d.self.Fd()), name, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	// NFS knows no such flag; a look has to do.
	if _, err := d.root.Lstat(name); err == nil {
		return unix.EEXIST
	}
	return d.root.Rename(path.Join(stageName, name), name)
}

// flush makes everything on the filesystem durable, and tells of writes that
// failed.
func (d *Dir) flush() error {
	if err := unix.Syncfs(int(d.self.Fd())); err != nil {
		return fmt.Errorf("flush %s: %w", d.path, err)
	}
	return nil
}

// Abort removes what was staged, and the directory if Open has made it.
func (d *Dir) Abort() error {
	err := errors.Join(d.stage.Close(), d.root.RemoveAll(stageName))
	if d.made && err == nil {
		err = ignoreMissing(os.Remove(d.path))
	}
	return errors.Join(err, d.close())
}

func (d *Dir) close() (err error) {
	if d.self != nil {
		err = d.self.Close()
	}
	if d.root != nil {
		err = errors.Join(err, d.root.Close())
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
