package errorfs

import (
	"errors"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// Open implements vfs.FS.
func (f *FS) Open(p manifest.Path) (vfs.File, error) {
	if err := f.inject.Op("Open", string(p)); err != nil {
		return nil, err
	}
	below, err := f.FS.Open(p)
	if err != nil {
		return nil, err
	}
	return &file{below, f.inject, string(p)}, nil
}

// OpenStaged implements vfs.FS.
func (f *FS) OpenStaged(name string) (vfs.File, error) {
	if err := f.inject.Op("OpenStaged", name); err != nil {
		return nil, err
	}
	below, err := f.FS.OpenStaged(name)
	if err != nil {
		return nil, err
	}
	return &file{below, f.inject, name}, nil
}

// Create implements vfs.FS.
func (f *FS) Create(name string, mode uint32) (vfs.WFile, error) {
	if err := f.inject.Op("Create", name); err != nil {
		return nil, err
	}
	below, err := f.FS.Create(name, mode)
	if err != nil {
		return nil, err
	}
	return &wfile{below, f.inject, name}, nil
}

type file struct {
	vfs.File
	inject Injector
	path   string
}

func (f *file) Read(b []byte) (int, error) {
	err := f.inject.Op(FileRead, f.path)
	if short := (Short{}); errors.As(err, &short) {
		return f.File.Read(b[:min(len(b), short.Bytes)])
	}
	if err != nil {
		return 0, err
	}
	return f.File.Read(b)
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	if err := f.inject.Op(FileReadAt, f.path); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, off)
}

func (f *file) Stat() (vfs.Stat, error) {
	if err := f.inject.Op(FileStat, f.path); err != nil {
		return vfs.Stat{}, err
	}
	return f.File.Stat()
}

func (f *file) Lease() (vfs.Lease, error) {
	if err := f.inject.Op(FileLease, f.path); err != nil {
		return nil, err
	}
	below, err := f.File.Lease()
	if err != nil {
		return nil, err
	}
	return &lease{below, f.inject, f.path}, nil
}

func (f *file) Sync() error {
	if err := f.inject.Op(FileSync, f.path); err != nil {
		return err
	}
	return f.File.Sync()
}

// Close closes in any case: an error of close leaves no descriptor behind.
func (f *file) Close() error {
	injected := f.inject.Op(FileClose, f.path)
	if err := f.File.Close(); injected == nil {
		return err
	}
	return injected
}

type wfile struct {
	vfs.WFile
	inject Injector
	name   string
}

func (w *wfile) Write(b []byte) (int, error) {
	err := w.inject.Op(WFileWrite, w.name)
	if short := (Short{}); errors.As(err, &short) {
		n, failed := w.WFile.Write(b[:min(len(b), short.Bytes)])
		return n, errors.Join(failed, short.Err)
	}
	if err != nil {
		return 0, err
	}
	return w.WFile.Write(b)
}

func (w *wfile) Sync() error {
	if err := w.inject.Op(WFileSync, w.name); err != nil {
		return err
	}
	return w.WFile.Sync()
}

func (w *wfile) Chmod(mode uint32) error {
	if err := w.inject.Op(WFileChmod, w.name); err != nil {
		return err
	}
	return w.WFile.Chmod(mode)
}

func (w *wfile) Chtimes(mtime int64) error {
	if err := w.inject.Op(WFileTimes, w.name); err != nil {
		return err
	}
	return w.WFile.Chtimes(mtime)
}

func (w *wfile) Stat() (vfs.Stat, error) {
	if err := w.inject.Op(WFileStat, w.name); err != nil {
		return vfs.Stat{}, err
	}
	return w.WFile.Stat()
}

// Close closes in any case.
func (w *wfile) Close() error {
	injected := w.inject.Op(WFileClose, w.name)
	if err := w.WFile.Close(); injected == nil {
		return err
	}
	return injected
}

type lease struct {
	vfs.Lease
	inject Injector
	path   string
}

func (l *lease) Intact() bool {
	return l.inject.Op(LeaseIntact, l.path) == nil && l.Lease.Intact()
}

// Release releases in any case.
func (l *lease) Release() bool {
	injected := l.inject.Op(LeaseGive, l.path)
	return l.Lease.Release() && injected == nil
}
