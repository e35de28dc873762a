package errorfs

import (
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// OpenFresh implements vfs.FS.
func (f *FS) OpenFresh(p manifest.Path) (vfs.File, error) {
	if err := f.inject.Op("OpenFresh", string(p)); err != nil {
		return nil, err
	}
	g, err := f.FS.OpenFresh(p)
	if err != nil {
		return nil, err
	}
	return &file{g, f.inject, string(p)}, nil
}

// Refresh implements vfs.FS.
func (f *FS) Refresh(p manifest.Path) error {
	if err := f.inject.Op("Refresh", string(p)); err != nil {
		return err
	}
	return f.FS.Refresh(p)
}

// ReadNote implements vfs.FS.
func (f *FS) ReadNote(name string) ([]byte, error) {
	if err := f.inject.Op("ReadNote", name); err != nil {
		return nil, err
	}
	return f.FS.ReadNote(name)
}

// WriteNote implements vfs.FS.
func (f *FS) WriteNote(name string, content []byte) error {
	if err := f.inject.Op("WriteNote", name); err != nil {
		return err
	}
	return f.FS.WriteNote(name, content)
}

// ListNotes implements vfs.FS.
func (f *FS) ListNotes(prefix string) ([]string, error) {
	if err := f.inject.Op("ListNotes", prefix); err != nil {
		return nil, err
	}
	return f.FS.ListNotes(prefix)
}

// Nudge implements vfs.FS.
func (f *FS) Nudge(p manifest.Path) error {
	if err := f.inject.Op("Nudge", string(p)); err != nil {
		return err
	}
	return f.FS.Nudge(p)
}

// RemoveNote implements vfs.FS.
func (f *FS) RemoveNote(name string) error {
	if err := f.inject.Op("RemoveNote", name); err != nil {
		return err
	}
	return f.FS.RemoveNote(name)
}

// Stagers implements vfs.FS.
func (f *FS) Stagers() ([]string, error) {
	if err := f.inject.Op("Stagers", ""); err != nil {
		return nil, err
	}
	return f.FS.Stagers()
}

// StagedBy implements vfs.FS.
func (f *FS) StagedBy(node string) ([]string, error) {
	if err := f.inject.Op("StagedBy", node); err != nil {
		return nil, err
	}
	return f.FS.StagedBy(node)
}

// TakeOver implements vfs.FS.
func (f *FS) TakeOver(node, name, as string) error {
	if err := f.inject.Op("TakeOver", name); err != nil {
		return err
	}
	return f.FS.TakeOver(node, name, as)
}

// DropStager implements vfs.FS.
func (f *FS) DropStager(node string) error {
	if err := f.inject.Op("DropStager", node); err != nil {
		return err
	}
	return f.FS.DropStager(node)
}
