package errorfs

import (
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// FS asks its Injector before each operation of the FS below it. Capabilities,
// Path and Close pass untouched, so that a test can always clean up.
type FS struct {
	vfs.FS
	inject Injector
}

var _ vfs.FS = (*FS)(nil)

// Wrap puts an Injector in front of an FS.
func Wrap(below vfs.FS, i Injector) *FS { return &FS{below, i} }

// Check implements vfs.FS.
func (f *FS) Check() error {
	if err := f.inject.Op("Check", ""); err != nil {
		return err
	}
	return f.FS.Check()
}

// Free implements vfs.FS.
func (f *FS) Free() (int64, error) {
	if err := f.inject.Op("Free", ""); err != nil {
		return 0, err
	}
	return f.FS.Free()
}

// Lstat implements vfs.FS.
func (f *FS) Lstat(p manifest.Path) (vfs.Stat, error) {
	if err := f.inject.Op("Lstat", string(p)); err != nil {
		return vfs.Stat{}, err
	}
	return f.FS.Lstat(p)
}

// ReadDir implements vfs.FS.
func (f *FS) ReadDir(p manifest.Path) ([]vfs.Entry, error) {
	if err := f.inject.Op("ReadDir", string(p)); err != nil {
		return nil, err
	}
	return f.FS.ReadDir(p)
}

// Readlink implements vfs.FS.
func (f *FS) Readlink(p manifest.Path) (string, error) {
	if err := f.inject.Op("Readlink", string(p)); err != nil {
		return "", err
	}
	return f.FS.Readlink(p)
}

// StageLink implements vfs.FS.
func (f *FS) StageLink(name, target string) error {
	if err := f.inject.Op("StageLink", name); err != nil {
		return err
	}
	return f.FS.StageLink(name, target)
}

// StatStaged implements vfs.FS.
func (f *FS) StatStaged(name string) (vfs.Stat, error) {
	if err := f.inject.Op("StatStaged", name); err != nil {
		return vfs.Stat{}, err
	}
	return f.FS.StatStaged(name)
}

// ReadlinkStaged implements vfs.FS.
func (f *FS) ReadlinkStaged(name string) (string, error) {
	if err := f.inject.Op("ReadlinkStaged", name); err != nil {
		return "", err
	}
	return f.FS.ReadlinkStaged(name)
}

// RemoveStaged implements vfs.FS.
func (f *FS) RemoveStaged(name string) error {
	if err := f.inject.Op("RemoveStaged", name); err != nil {
		return err
	}
	return f.FS.RemoveStaged(name)
}

// ListStaged implements vfs.FS.
func (f *FS) ListStaged() ([]string, error) {
	if err := f.inject.Op("ListStaged", ""); err != nil {
		return nil, err
	}
	return f.FS.ListStaged()
}

// SyncStaging implements vfs.FS.
func (f *FS) SyncStaging() error {
	if err := f.inject.Op("SyncStaging", ""); err != nil {
		return err
	}
	return f.FS.SyncStaging()
}

// Exchange implements vfs.FS.
func (f *FS) Exchange(name string, p manifest.Path) error {
	if err := f.inject.Op("Exchange", string(p)); err != nil {
		return err
	}
	return f.FS.Exchange(name, p)
}

// Place implements vfs.FS.
func (f *FS) Place(name string, p manifest.Path) error {
	if err := f.inject.Op("Place", string(p)); err != nil {
		return err
	}
	return f.FS.Place(name, p)
}

// Replace implements vfs.FS.
func (f *FS) Replace(name string, p manifest.Path) error {
	if err := f.inject.Op("Replace", string(p)); err != nil {
		return err
	}
	return f.FS.Replace(name, p)
}

// TakeOut implements vfs.FS.
func (f *FS) TakeOut(p manifest.Path, name string) error {
	if err := f.inject.Op("TakeOut", string(p)); err != nil {
		return err
	}
	return f.FS.TakeOut(p, name)
}

// LinkOut implements vfs.FS.
func (f *FS) LinkOut(p manifest.Path, name string) error {
	if err := f.inject.Op("LinkOut", string(p)); err != nil {
		return err
	}
	return f.FS.LinkOut(p, name)
}

// Mkdir implements vfs.FS.
func (f *FS) Mkdir(p manifest.Path, mode uint32) error {
	if err := f.inject.Op("Mkdir", string(p)); err != nil {
		return err
	}
	return f.FS.Mkdir(p, mode)
}

// Rmdir implements vfs.FS.
func (f *FS) Rmdir(p manifest.Path) error {
	if err := f.inject.Op("Rmdir", string(p)); err != nil {
		return err
	}
	return f.FS.Rmdir(p)
}

// Chmod implements vfs.FS.
func (f *FS) Chmod(p manifest.Path, expect vfs.Stat, mode uint32) error {
	if err := f.inject.Op("Chmod", string(p)); err != nil {
		return err
	}
	return f.FS.Chmod(p, expect, mode)
}

// SyncDir implements vfs.FS.
func (f *FS) SyncDir(p manifest.Path) error {
	if err := f.inject.Op("SyncDir", string(p)); err != nil {
		return err
	}
	return f.FS.SyncDir(p)
}

// SyncFile implements vfs.FS.
func (f *FS) SyncFile(p manifest.Path) error {
	if err := f.inject.Op("SyncFile", string(p)); err != nil {
		return err
	}
	return f.FS.SyncFile(p)
}

// SyncFS implements vfs.FS.
func (f *FS) SyncFS() error {
	if err := f.inject.Op("SyncFS", ""); err != nil {
		return err
	}
	return f.FS.SyncFS()
}

// ReadMarker implements vfs.FS.
func (f *FS) ReadMarker() ([]byte, error) {
	if err := f.inject.Op("ReadMarker", ""); err != nil {
		return nil, err
	}
	return f.FS.ReadMarker()
}

// MarkerPlace implements vfs.FS.
func (f *FS) MarkerPlace() (vfs.Place, error) {
	if err := f.inject.Op("MarkerPlace", ""); err != nil {
		return vfs.Place{}, err
	}
	return f.FS.MarkerPlace()
}

// WriteMarker implements vfs.FS.
func (f *FS) WriteMarker(content []byte) error {
	if err := f.inject.Op("WriteMarker", ""); err != nil {
		return err
	}
	return f.FS.WriteMarker(content)
}
