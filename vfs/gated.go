package vfs

import (
	"errors"

	"github.com/gatesync/gatesync/manifest"
)

// OpenRoot opens a root through the gate: where the path lies on a local
// filesystem it is the root itself, else one whose every call goes through the
// gate, see Gate. It is for a gate's own path.
func (g *Gate) OpenRoot(o Options) (FS, error) {
	if err := g.Resolve(); err != nil {
		return nil, pathError("open root", g.path, err)
	}
	m, err := g.Mount()
	if err != nil {
		return nil, err
	}
	if m.Local() {
		return OpenRoot(g.path, o)
	}
	root, err := PassLong(g, "open root", func() (*Root, error) { return OpenRoot(g.path, o) }, func(r *Root) { _ = r.Close() })
	if err != nil {
		return nil, err
	}
	return Behind(g, root), nil
}

// Behind puts a gate before an FS: a call that hangs is left behind and ends,
// for its caller, with ErrHung. Path and Capabilities ask nobody and pass.
func Behind(g *Gate, below FS) FS { return &gated{FS: below, gate: g, mount: g.at()} }

// GateOf returns the gate before an FS, nil where there is none: for calls on
// its Path that are not the FS's own.
func GateOf(f FS) *Gate {
	if g, ok := f.(*gated); ok {
		return g.gate
	}
	return nil
}

type gated struct {
	FS
	gate  *Gate
	mount int // that it was opened on: what hangs in another one is not its concern
}

var _ FS = (*gated)(nil)

// do is Gate.Do with the error that an operation on a path has.
func (f *gated) do(op, path string, fn func() error) error {
	_, err := ask(f, op, path, func() (struct{}, error) { return struct{}{}, fn() }, nil)
	return err
}

func (f *gated) long(op, path string, fn func() error) error {
	_, err := askLong(f, op, path, func() (struct{}, error) { return struct{}{}, fn() })
	return err
}

// hung names operation and path where it is the gate that speaks.
func hung(op, path string, err error) error {
	var h *HungError
	if errors.As(err, &h) {
		return pathError(op, path, h)
	}
	return err
}

func ask[T any](f *gated, op, path string, fn func() (T, error), late func(T)) (T, error) {
	v, err := pass(f.gate, f.mount, op, f.gate.patience, fn, late)
	return v, hung(op, path, err)
}

func askLong[T any](f *gated, op, path string, fn func() (T, error)) (T, error) {
	v, err := pass(f.gate, f.mount, op, f.gate.long, fn, nil)
	return v, hung(op, path, err)
}

func (f *gated) close(path string, fn func() error) error {
	return hung("close", path, f.gate.closeIn(f.mount, "close", fn))
}

// Check asks the kernel's list of mounts first: it answers even where the root
// lies in a mount that hangs and that another one has taken the place of.
func (f *gated) Check() error {
	if m, err := f.gate.Mount(); err == nil && m.ID != f.mount {
		return pathError("check", f.Path(), ErrRootReplaced)
	}
	return f.do("check", "", f.FS.Check)
}

func (f *gated) Free() (int64, error) { return ask(f, "statfs", "", f.FS.Free, nil) }
func (f *gated) Close() error         { return f.close("", f.FS.Close) }

func (f *gated) Lstat(p manifest.Path) (Stat, error) {
	return ask(f, "lstat", string(p), func() (Stat, error) { return f.FS.Lstat(p) }, nil)
}

// ReadDir may honestly take long: it looks at each name.
func (f *gated) ReadDir(p manifest.Path) ([]Entry, error) {
	return askLong(f, "readdir", string(p), func() ([]Entry, error) { return f.FS.ReadDir(p) })
}

func (f *gated) Readlink(p manifest.Path) (string, error) {
	return ask(f, "readlink", string(p), func() (string, error) { return f.FS.Readlink(p) }, nil)
}

func (f *gated) Open(p manifest.Path) (File, error) {
	return f.file("open", string(p), func() (File, error) { return f.FS.Open(p) })
}

func (f *gated) OpenStaged(name string) (File, error) {
	return f.file("open", name, func() (File, error) { return f.FS.OpenStaged(name) })
}

func (f *gated) file(op, path string, open func() (File, error)) (File, error) {
	file, err := ask(f, op, path, open, func(late File) { _ = late.Close() })
	if err != nil {
		return nil, err
	}
	return &gatedFile{File: file, fs: f, path: path}, nil
}

func (f *gated) Create(name string, mode uint32) (WFile, error) {
	w, err := ask(f, "create", name, func() (WFile, error) { return f.FS.Create(name, mode) }, func(late WFile) { _ = late.Close() })
	if err != nil {
		return nil, err
	}
	return &gatedWFile{WFile: w, fs: f, name: name}, nil
}

func (f *gated) StageLink(name, target string) error {
	return f.do("symlink", name, func() error { return f.FS.StageLink(name, target) })
}

func (f *gated) StatStaged(name string) (Stat, error) {
	return ask(f, "lstat", name, func() (Stat, error) { return f.FS.StatStaged(name) }, nil)
}

func (f *gated) ReadlinkStaged(name string) (string, error) {
	return ask(f, "readlink", name, func() (string, error) { return f.FS.ReadlinkStaged(name) }, nil)
}

func (f *gated) RemoveStaged(name string) error {
	return f.do("remove", name, func() error { return f.FS.RemoveStaged(name) })
}

func (f *gated) ListStaged() ([]string, error) {
	return askLong(f, "list staging", "", f.FS.ListStaged)
}

func (f *gated) SyncStaging() error { return f.long("sync", "", f.FS.SyncStaging) }

func (f *gated) Exchange(name string, p manifest.Path) error {
	return f.do("exchange", string(p), func() error { return f.FS.Exchange(name, p) })
}

func (f *gated) Place(name string, p manifest.Path) error {
	return f.do("place", string(p), func() error { return f.FS.Place(name, p) })
}

func (f *gated) Replace(name string, p manifest.Path) error {
	return f.do("replace", string(p), func() error { return f.FS.Replace(name, p) })
}

func (f *gated) TakeOut(p manifest.Path, name string) error {
	return f.do("take out", string(p), func() error { return f.FS.TakeOut(p, name) })
}

func (f *gated) LinkOut(p manifest.Path, name string) error {
	return f.do("link out", string(p), func() error { return f.FS.LinkOut(p, name) })
}

func (f *gated) Mkdir(p manifest.Path, mode uint32) error {
	return f.do("mkdir", string(p), func() error { return f.FS.Mkdir(p, mode) })
}

func (f *gated) Rmdir(p manifest.Path) error {
	return f.do("rmdir", string(p), func() error { return f.FS.Rmdir(p) })
}

func (f *gated) Chmod(p manifest.Path, expect Stat, mode uint32) error {
	return f.do("chmod", string(p), func() error { return f.FS.Chmod(p, expect, mode) })
}

func (f *gated) SyncDir(p manifest.Path) error {
	return f.long("sync", string(p), func() error { return f.FS.SyncDir(p) })
}

func (f *gated) SyncFile(p manifest.Path) error {
	return f.long("sync", string(p), func() error { return f.FS.SyncFile(p) })
}

func (f *gated) SyncFS() error { return f.long("syncfs", "", f.FS.SyncFS) }

func (f *gated) ReadMarker() ([]byte, error) {
	return ask(f, "read marker", "", f.FS.ReadMarker, nil)
}

func (f *gated) MarkerPlace() (Place, error) {
	return ask(f, "stat marker", "", f.FS.MarkerPlace, nil)
}

func (f *gated) WriteMarker(content []byte) error {
	return f.long("write marker", "", func() error { return f.FS.WriteMarker(content) })
}

// gatedFile reads into buffers of its own: a read that was left behind may
// still write into its buffer, long after the caller has gone on.
type gatedFile struct {
	File
	fs   *gated
	path string
	buf  []byte // for the next Read; nil while one has it
}

func (f *gatedFile) Read(b []byte) (int, error) {
	buf := f.buf
	if len(buf) < len(b) {
		buf = make([]byte, len(b))
	}
	f.buf = nil
	n, err := ask(f.fs, "read", f.path, func() (int, error) { return f.File.Read(buf[:len(b)]) }, nil)
	if errors.Is(err, ErrHung) {
		return 0, err
	}
	f.buf = buf
	return copy(b, buf[:n]), err
}

func (f *gatedFile) ReadAt(b []byte, off int64) (int, error) {
	buf := make([]byte, len(b))
	n, err := ask(f.fs, "read", f.path, func() (int, error) { return f.File.ReadAt(buf, off) }, nil)
	if errors.Is(err, ErrHung) {
		return 0, err
	}
	return copy(b, buf[:n]), err
}

func (f *gatedFile) Stat() (Stat, error) { return ask(f.fs, "stat", f.path, f.File.Stat, nil) }

func (f *gatedFile) Lease() (Lease, error) {
	return ask(f.fs, "lease", f.path, f.File.Lease, func(l Lease) { l.Release() })
}

func (f *gatedFile) Sync() error { return f.fs.long("sync", f.path, f.File.Sync) }
func (f *gatedFile) Close() error {
	return hung("close", f.path, f.fs.gate.Close("close", f.File.Close))
}

type gatedWFile struct {
	WFile
	fs   *gated
	name string
}

// Write hands over a copy, for the same reason.
func (w *gatedWFile) Write(b []byte) (int, error) {
	own := append([]byte(nil), b...)
	return ask(w.fs, "write", w.name, func() (int, error) { return w.WFile.Write(own) }, nil)
}

func (w *gatedWFile) Sync() error { return w.fs.long("sync", w.name, w.WFile.Sync) }

func (w *gatedWFile) Chmod(mode uint32) error {
	return w.fs.do("chmod", w.name, func() error { return w.WFile.Chmod(mode) })
}

func (w *gatedWFile) Chtimes(mtime int64) error {
	return w.fs.do("chtimes", w.name, func() error { return w.WFile.Chtimes(mtime) })
}

func (w *gatedWFile) Stat() (Stat, error) { return ask(w.fs, "stat", w.name, w.WFile.Stat, nil) }

// Close may have to wait for what was written.
func (w *gatedWFile) Close() error {
	return hung("close", w.name, w.fs.gate.Close("close", w.WFile.Close))
}
