package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/doctor"
	"github.com/gatesync/gatesync/manifest"
)

// Visit is a look at one tree's directory. What it has put there stands until
// Close, so that others may be asked whether they see it.
type Visit struct {
	Tree  doctor.Tree
	Nonce string // the name under .gatesync; "" where none could be made

	made  bool // .gatesync itself was made
	limit time.Duration
}

// Asked is what there is to know of a tree before its directory is touched.
type Asked struct {
	Name, Path, Storage string
	// Judge compares the marker of the root with what this node expects.
	Judge func(marker []byte) error
	// UID is who tries.
	UID uint32
}

// Visit looks at a tree's directory and tries things out in it.
func (m Machine) Visit(ask Asked) *Visit {
	v := &Visit{limit: m.limit(), Tree: doctor.Tree{Name: ask.Name, Path: ask.Path, Storage: ask.Storage}}
	t := &v.Tree
	step := func(name string, fn func() error) bool {
		_, err := within(v.limit, func() (struct{}, error) { return struct{}{}, fn() })
		switch {
		case errors.Is(err, errHung):
			t.Hung = name
		case err != nil && t.Err == "":
			t.Err = err.Error()
		}
		return err == nil
	}
	// Each step fills a value of its own: one that hangs may wake up later.
	looked := &look{}
	if !step("looking at it", func() error { return looked.at(ask.Path) }) {
		return v
	}
	t.Real, t.Mode, t.UID, t.GID, t.Beside = looked.real, looked.mode, looked.uid, looked.gid, looked.beside
	if mounts, err := m.Mounts(); err == nil {
		t.Mount, t.Inner = mountOf(mounts, t.Real), inside(mounts, t.Real)
	}
	listed := &listing{limit: v.limit / 2}
	if !step("listing it", func() error { return listed.of(t.Real) }) {
		return v
	}
	t.Dirs, t.DirsPart = listed.dirs, listed.part
	var marker []byte
	if !step("reading its marker", func() (err error) { marker, err = readMarker(t.Real); return err }) {
		return v
	}
	if t.Marker.There = marker != nil; t.Marker.There {
		err := ask.Judge(marker)
		if t.Marker.Ours = err == nil; err != nil {
			t.Marker.Why = err.Error()
		}
	}
	v.try(ask)
	return v
}

type look struct {
	real     string
	mode     doctor.Perm
	uid, gid uint32
	beside   bool
}

func (l *look) at(path string) (err error) {
	if l.real, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	var st, up unix.Stat_t
	if err := unix.Stat(l.real, &st); err != nil {
		return &os.PathError{Op: "stat", Path: l.real, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%s is no directory", l.real)
	}
	l.mode, l.uid, l.gid = modeOf(st), st.Uid, st.Gid
	parent := filepath.Dir(l.real)
	if err := unix.Stat(parent, &up); err != nil || l.real == "/" || up.Dev != st.Dev {
		return nil
	}
	made := filepath.Join(parent, manifest.MarkerDir+"-"+filepath.Base(l.real))
	l.beside = unix.Access(made, unix.W_OK) == nil || unix.Access(parent, unix.W_OK) == nil
	return nil
}

type listing struct {
	limit time.Duration
	dirs  int
	part  bool
}

// of counts directories, for as long as it may take.
func (l *listing) of(root string) error {
	ctx, cancel := context.WithTimeout(context.Background(), l.limit)
	defer cancel()
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			l.part = true
			return filepath.SkipAll
		case err != nil && path == root:
			return err
		case err != nil: // it vanished, or is another's
			return nil
		case e.IsDir() && path != root:
			l.dirs++
		}
		return nil
	})
}

func readMarker(root string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(root, manifest.MarkerDir, "marker.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// Close removes what the visit has put into the tree.
func (v *Visit) Close() {
	if v.Nonce == "" {
		return
	}
	dir := filepath.Join(v.Tree.Real, manifest.MarkerDir)
	_, err := within(v.limit, func() (struct{}, error) {
		err := os.RemoveAll(filepath.Join(dir, v.Nonce))
		if v.made && err == nil {
			_ = os.Remove(dir) // somebody may have put his marker into it by now
		}
		return struct{}{}, err
	})
	if err != nil && v.Tree.Trial != nil {
		v.Tree.Trial.Left = filepath.Join(dir, v.Nonce) + ": " + err.Error()
	}
}
