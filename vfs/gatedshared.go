package vfs

import "github.com/gatesync/gatesync/manifest"

func (f *gated) Refresh(p manifest.Path) error {
	return f.do("refresh", string(p), func() error { return f.FS.Refresh(p) })
}

func (f *gated) OpenFresh(p manifest.Path) (File, error) {
	return f.file("open", string(p), func() (File, error) { return f.FS.OpenFresh(p) })
}

func (f *gated) ReadNote(name string) ([]byte, error) {
	return ask(f, "read", name, func() ([]byte, error) { return f.FS.ReadNote(name) }, nil)
}

func (f *gated) WriteNote(name string, content []byte) error {
	return f.do("write", name, func() error { return f.FS.WriteNote(name, content) })
}

func (f *gated) ListNotes(prefix string) ([]string, error) {
	return ask(f, "list", prefix, func() ([]string, error) { return f.FS.ListNotes(prefix) }, nil)
}

func (f *gated) Nudge(p manifest.Path) error {
	return f.do("nudge", string(p), func() error { return f.FS.Nudge(p) })
}

func (f *gated) RemoveNote(name string) error {
	return f.do("remove", name, func() error { return f.FS.RemoveNote(name) })
}

func (f *gated) Stagers() ([]string, error) {
	return ask(f, "list", "", f.FS.Stagers, nil)
}

func (f *gated) StagedBy(node string) ([]string, error) {
	return ask(f, "list", node, func() ([]string, error) { return f.FS.StagedBy(node) }, nil)
}

func (f *gated) TakeOver(node, name, as string) error {
	return f.do("take over", name, func() error { return f.FS.TakeOver(node, name, as) })
}

func (f *gated) DropStager(node string) error {
	return f.do("remove", node, func() error { return f.FS.DropStager(node) })
}
