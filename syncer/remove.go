package syncer

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// remove takes a file, a symlink or an empty directory away.
func (a *applier) remove(j *job) error {
	st, err := a.fs.Lstat(j.step.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		j.end(StepDone, nil) // nil ancestor: absent
		j.unplan, j.touched = j.name != "", true
		return nil
	case err != nil:
		return err
	case st.Kind != j.step.Expect.Entry.Kind:
		j.surprise("a %s stands there", kindName(st.Kind))
		return nil
	}
	if st.Kind == manifest.Dir {
		if a.dropDir(j) {
			j.end(StepDone, nil)
		}
		return nil
	}
	gone, err := a.takeOut(j)
	if gone {
		j.end(StepDone, nil)
	}
	return err
}

// dropDir removes an empty directory. What it does not do ends the job.
func (a *applier) dropDir(j *job) (gone bool) {
	err := a.fs.Rmdir(j.step.Path)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		j.touched = true
		return true
	case !errors.Is(err, vfs.ErrNotEmpty):
		a.failed(j, err)
		return false
	}
	names, err := a.fs.ReadDir(j.step.Path)
	if err != nil {
		a.failed(j, err)
		return false
	}
	if len(names) == 0 {
		j.surprise("what stood in it went at this moment")
		return false
	}
	for _, e := range names {
		if manifest.SillyRenamed(manifest.Path(e.Name)) { // goes with the last close
			j.surprise("a file that was removed from it is still open")
			return false
		}
		if !a.s.cfg.Ignore.Match(j.step.Path.Join(e.Name), e.Stat.Kind == manifest.Dir) {
			a.s.inbox.hint(j.step.Path.Join(e.Name))
			j.surprise("%q stands in it", e.Name)
			return false
		}
	}
	j.end(StepLeft, nil)
	return false
}

// takeOut moves a file or symlink out of the tree, looks at it, and puts it
// back if it is not what was expected. gone tells that the path is free.
func (a *applier) takeOut(j *job) (gone bool, err error) {
	var h *held
	if j.step.Expect.Entry.Kind == manifest.File {
		if h, err = a.hold(j.step.Path, j.step.Expect); err != nil {
			return false, err
		}
		h.letGo()
	}
	j.moved = true
	if err := a.fs.TakeOut(j.step.Path, j.name); err != nil {
		if h != nil {
			h.release()
		}
		return false, err
	}
	j.touched = true
	st, err := a.fs.StatStaged(j.name)
	differs, unsure := "", false
	switch {
	case err != nil:
		differs = err.Error()
	case h != nil:
		differs = differences(h.st, st)
		unsure = h.lease == nil
	case st.Kind == manifest.Symlink:
		if target, err := a.fs.ReadlinkStaged(j.name); err != nil || target != j.step.Expect.Entry.Target {
			differs = fmt.Sprintf("its target is %q, not %q (%v)", target, j.step.Expect.Entry.Target, err)
		}
	default:
		differs = "it is a " + kindName(st.Kind) + " now"
	}
	if h != nil && !h.release() && !unsure && differs == "" {
		differs = "somebody opens it for writing"
	}
	if unsure && err == nil && differs != "" && a.stagedAs(j, st) {
		differs = "" // a network file system may tell other times under another name
	}
	expected := differs == ""
	switch {
	case expected && !unsure && a.fs.RemoveStaged(j.name) == nil:
		j.out = true
		j.unplan = true
		return true, nil
	case expected:
		j.out = true
		a.quarantine(j, j.name)
		return true, nil
	}
	return false, a.putBack(j, differs)
}

// stagedAs tells whether what came out has the content that was expected.
func (a *applier) stagedAs(j *job, st vfs.Stat) bool {
	e := j.step.Expect.Entry
	if st.Kind != e.Kind || st.Size != e.Size || a.s.modeOf(st, e) != e.Mode {
		return false
	}
	ref, err := digestStaged(a.ctx, a.fs, j.name)
	return err == nil && ref.Digest == e.Digest
}

// differences names what is different in two looks at one file; "": nothing that
// tells of a write.
func differences(was, is vfs.Stat) string {
	var out []string
	for _, d := range []struct {
		what    string
		was, is any
	}{
		{"kind", was.Kind, is.Kind}, {"inode", was.Ino, is.Ino}, {"size", was.Size, is.Size}, {"mtime", was.MTime, is.MTime}, {"mode", was.Mode, is.Mode},
	} {
		if d.was != d.is {
			out = append(out, fmt.Sprintf("%s %v, was %v", d.what, d.is, d.was))
		}
	}
	return strings.Join(out, "; ")
}

// putBack returns to the tree what should not have been taken out, and differs
// from what was expected. Where something new stands there by now, it is kept
// aside instead.
func (a *applier) putBack(j *job, differs string) error {
	err := a.fs.Place(j.name, j.step.Path)
	switch {
	case err == nil:
		j.unplan = true
	case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrNotExist):
		a.quarantine(j, j.name)
	default:
		return err
	}
	a.s.log.Info("a file that was to be removed is not what was expected: it was put back", "path", j.step.Path, "differs", differs)
	j.surprise("it was changed a moment ago (%s)", differs)
	return nil
}

// quarantine hands what was displaced over, to be judged when it is at rest.
func (a *applier) quarantine(j *job, name string) {
	j.kept = true
	a.s.quarantine.add(displaced{
		name: name, plan: j.name, path: j.step.Path, expect: j.step.Expect.Entry, winner: j.step.New.Revision,
	})
}
