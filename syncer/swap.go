package syncer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// put places what was staged for a file or a symlink.
func (a *applier) put(j *job) error {
	p, expect := j.step.Path, j.step.Expect
	st, err := a.fs.Lstat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !expect.Entry.Absent() {
			j.surprise("it has vanished")
			return nil
		}
		return a.placeNew(j)
	case err != nil:
		return err
	case a.alreadyThere(j, st):
		return nil
	case expect.Entry.IsDir() && st.Kind == manifest.Dir:
		if !a.dropDir(j) {
			return nil
		}
		return a.placeNew(j)
	case expect.Entry.Absent(), st.Kind != expect.Entry.Kind:
		j.surprise("a %s stands there", kindName(st.Kind))
		return nil
	}
	return a.exchange(j, st)
}

func kindName(k manifest.Kind) string {
	if k == vfs.Other {
		return "device, FIFO or socket"
	}
	return k.String()
}

// placeNew moves a staged name to where nothing stands.
func (a *applier) placeNew(j *job) error {
	j.moved = true
	if err := a.fs.Place(j.name, j.step.Path); err != nil {
		return err
	}
	j.unplan, j.touched = true, true
	a.placed(j)
	return nil
}

// placed ends a job whose staged inode is in the tree now. Whoever wrote to it
// already is found by the stamp, which can only be that of our own content.
func (a *applier) placed(j *job) {
	stamp := Stamp{Ino: j.ino, Racy: true}
	st, err := a.fs.Lstat(j.step.Path)
	if err == nil && st.Ino == j.ino && st.MTime == j.mtime && st.Size == j.step.New.Entry.Size {
		stamp = stampOf(st)
		// A file system that keeps no fine times may repeat ours.
		stamp.Racy = st.Kind == manifest.File && st.MTime%1e6 == 0 && a.s.racy(st)
	}
	a.done(j, stamp)
}

func (a *applier) done(j *job, stamp Stamp) {
	n := j.step.New
	j.ancestor = &Ancestor{Entry: n.Entry, Revision: n.Revision, Author: n.Author, Stamp: stamp}
	j.end(StepDone, nil)
}

// alreadyThere ends a job whose path holds what is committed: the plan is run
// again after a crash, or somebody wrote the same. It reads only where the
// expectation does not hold anyway.
func (a *applier) alreadyThere(j *job, st vfs.Stat) bool {
	e := j.step.New.Entry
	if st.Kind != e.Kind || a.s.modeOf(st, e) != e.Mode || stampOf(st) == j.step.Expect.Stamp {
		return false
	}
	stamp := stampOf(st)
	switch st.Kind {
	case manifest.Symlink:
		if target, err := a.fs.Readlink(j.step.Path); err != nil || target != e.Target {
			return false
		}
	case manifest.File:
		if st.Size != e.Size {
			return false
		}
		h, err := a.hold(j.step.Path, Ancestor{Entry: e})
		if err != nil {
			return false
		}
		defer h.release()
		if h.file == nil || h.file.Sync() != nil {
			return false
		}
		stamp = stampOf(h.st)
		stamp.Racy = a.s.racy(h.st)
	default:
		return false
	}
	j.touched = true
	a.done(j, stamp)
	return true
}

// held is a file that stands in the tree, opened, known to be what was
// expected, and leased where leases work.
type held struct {
	file  vfs.File  // nil: its mode keeps us from reading it
	lease vfs.Lease // nil where leases do not work
	st    vfs.Stat
}

// release gives the lease back and tells whether nobody asked to write since
// the file was looked at. Without leases nothing can be told.
func (h *held) release() (intact bool) {
	if h.lease != nil {
		intact = h.lease.Release()
	}
	if h.file != nil {
		_ = h.file.Close() // read only
	}
	return intact
}

// letGo closes the file before it is moved where no lease keeps writers off
// anyhow: an NFS client gives what is open and goes another name beside it
// (".nfs…"), in the gateway's directory.
func (h *held) letGo() {
	if h.lease == nil && h.file != nil {
		_ = h.file.Close() // read only
		h.file = nil
	}
}

// hold opens what stands at p, keeps writers off, and makes sure that it is
// what was expected: by its stamp, or by its content where the stamp differs.
// vfs.ErrChanged where it is something else, vfs.ErrWriter where somebody writes.
func (a *applier) hold(p manifest.Path, expect Ancestor) (*held, error) {
	f, err := a.s.openFile(a.fs, p)
	if errors.Is(err, fs.ErrPermission) {
		// A mode of another node's may say so. What comes out of the tree can be
		// read, and is judged then.
		if st, serr := a.fs.Lstat(p); serr == nil && st.Mode&0o400 == 0 && a.s.unchangedBut(st, expect) {
			return &held{st: st}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	h := &held{file: f}
	if h.lease, err = a.s.lease(a.ctx, f); err != nil {
		h.lease = nil
		if !errors.Is(err, vfs.ErrNoLease) {
			h.release()
			return nil, err
		}
	}
	if h.st, err = f.Stat(); err == nil {
		err = a.expected(h, expect)
	}
	if err != nil {
		h.release()
		return nil, err
	}
	return h, nil
}

func (a *applier) expected(h *held, expect Ancestor) error {
	e := expect.Entry
	if h.st.Size != e.Size || a.s.modeOf(h.st, e) != e.Mode {
		return vfs.ErrChanged
	}
	if stampOf(h.st) == expect.Stamp {
		return nil // never where the expected stamp is racy: then content decides
	}
	r := &watchedReader{ctx: a.ctx, f: h.file, left: h.st.Size, lease: h.lease}
	ref, err := Digester{}.Put(io.Reader(r))
	if err != nil {
		return err
	}
	if ref.Digest != e.Digest {
		return vfs.ErrChanged
	}
	after, err := h.file.Stat()
	if err != nil {
		return err
	}
	if stampOf(after) != stampOf(h.st) {
		return errOvertaken
	}
	return nil
}

// exchange swaps what was staged with what stands at the path, and looks at
// what came out. st is what stood there a moment ago.
func (a *applier) exchange(j *job, st vfs.Stat) error {
	var h *held
	if st.Kind == manifest.File {
		var err error
		if h, err = a.hold(j.step.Path, j.step.Expect); err != nil {
			return err
		}
		h.letGo()
	} else if err := a.sameLink(j, st); err != nil {
		return err
	}
	out := j.name
	j.moved = true
	err := a.fs.Exchange(j.name, j.step.Path)
	if errors.Is(err, vfs.ErrNoExchange) {
		out, err = a.replaceBeside(j)
	}
	if err != nil {
		if h != nil {
			h.release()
		}
		return err
	}
	return a.cameOut(j, h, out)
}

// replaceBeside is exchange where the file system has none: the old inode gets
// a second name first. What is renamed onto the path between the two calls is
// lost; status says that this root is weaker.
func (a *applier) replaceBeside(j *job) (out string, err error) {
	out = besideName(j.name)
	j.moved, j.beside = true, true
	if err := a.fs.LinkOut(j.step.Path, out); err != nil {
		_, serr := a.fs.StatStaged(out)
		j.beside = !errors.Is(serr, fs.ErrNotExist)
		return "", err
	}
	return out, a.fs.Replace(j.name, j.step.Path)
}

// besideName is the staged name of what replaceBeside displaces.
func besideName(name string) string { return name + "~" }

// cameOut judges what an exchange brought into the staging directory.
func (a *applier) cameOut(j *job, h *held, out string) error {
	st, err := a.fs.StatStaged(out)
	if err != nil {
		if h != nil {
			h.release()
		}
		return fmt.Errorf("cannot look at what was displaced: %w", err)
	}
	if st.Kind == manifest.Dir {
		if h != nil {
			h.release()
		}
		return a.swapBack(j)
	}
	j.touched, j.out = true, true
	a.placed(j)
	clean := false
	switch {
	case h != nil:
		same := st.Ino == h.st.Ino && st.Size == h.st.Size && st.MTime == h.st.MTime && st.Mode == h.st.Mode
		intact := h.release()
		clean = same && intact
	case st.Kind == manifest.Symlink:
		target, err := a.fs.ReadlinkStaged(out)
		clean = err == nil && target == j.step.Expect.Entry.Target
	}
	if clean && a.fs.RemoveStaged(out) == nil {
		j.unplan = true
		return nil
	}
	// A local edit that nobody had seen, or somebody who may still be writing
	// to the old inode: it is judged when it has come to rest.
	a.quarantine(j, out)
	return nil
}

// swapBack undoes an exchange that took a directory out of the tree.
func (a *applier) swapBack(j *job) error {
	if err := a.fs.Exchange(j.name, j.step.Path); err != nil {
		return fmt.Errorf("a directory was displaced and cannot be put back now: %w", err)
	}
	j.surprise("a directory stands there")
	return nil
}

// sameLink makes sure that the expected symlink stands there.
func (a *applier) sameLink(j *job, st vfs.Stat) error {
	target, err := a.fs.Readlink(j.step.Path)
	if err != nil {
		return err
	}
	if target != j.step.Expect.Entry.Target {
		return vfs.ErrChanged
	}
	return nil
}

// putDir makes a directory, or gives it its mode.
func (a *applier) putDir(j *job) error {
	p, e := j.step.Path, j.step.New.Entry
	st, err := a.fs.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) && j.step.Expect.Entry.Absent() {
		return a.makeDir(j)
	}
	if err != nil {
		return err
	}
	if st.Kind != manifest.Dir {
		if j.step.Expect.Entry.Kind != st.Kind {
			j.surprise("a %s stands there", kindName(st.Kind))
			return nil
		}
		if gone, err := a.takeOut(j); !gone {
			return err
		}
		return a.makeDir(j)
	}
	if a.s.modeOf(st, e) != e.Mode {
		if err := a.fs.Chmod(p, st, e.Mode); err != nil {
			return err
		}
		j.touched = true
	}
	a.done(j, Stamp{Ino: st.Ino})
	return nil
}

func (a *applier) makeDir(j *job) error {
	if err := a.fs.Mkdir(j.step.Path, j.step.New.Entry.Mode); err != nil {
		return err
	}
	j.touched = true
	st, err := a.fs.Lstat(j.step.Path)
	if err != nil {
		return err
	}
	a.done(j, Stamp{Ino: st.Ino})
	return nil
}

// setMode changes a file's mode alone; content and mtime stay.
func (a *applier) setMode(j *job) error {
	p, e := j.step.Path, j.step.New.Entry
	h, err := a.hold(p, j.step.Expect)
	if errors.Is(err, vfs.ErrChanged) {
		if st, serr := a.fs.Lstat(p); serr == nil && a.alreadyThere(j, st) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	defer h.release()
	if err := a.fs.Chmod(p, h.st, e.Mode); err != nil {
		return err
	}
	j.touched = true
	var st vfs.Stat
	if h.file != nil {
		st, err = h.file.Stat()
	} else {
		st, err = a.fs.Lstat(p)
	}
	if err != nil {
		return err
	}
	stamp := stampOf(st)
	if st.Ino != h.st.Ino || st.Size != h.st.Size || st.MTime != h.st.MTime {
		stamp = Stamp{Ino: st.Ino, Racy: true} // written meanwhile: to be looked at
	}
	stamp.Racy = stamp.Racy || j.step.Expect.Stamp.Racy || a.s.cfg.Now().UnixNano()-st.MTime < int64(racyWindow)
	a.done(j, stamp)
	return nil
}
