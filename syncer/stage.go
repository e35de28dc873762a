package syncer

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

const (
	// stagers write content beside each other where a group has many files.
	stagers = 4
	// syncEvery bounds how much of a large file waits to be flushed, so that
	// the flush of a small one need not wait for all of it.
	syncEvery = 16 << 20
	// copyChunk is how much is copied before ctx is asked again.
	copyChunk = 256 << 10
)

// stage prepares everything that the group's steps will swap in: names, content,
// flush, plan. Jobs that fail end here.
func (a *applier) stage() {
	a.makeRoom()
	var files []*job
	writers := map[*job]vfs.WFile{}
	for _, j := range a.jobs {
		if j.outcome != 0 {
			continue
		}
		if err := a.create(j, writers); err != nil {
			a.failed(j, err)
		}
		if writers[j] != nil {
			files = append(files, j)
		}
	}
	each := len(files) <= fewSyncs

	var both errgroup.Group
	plan := a.plan()
	both.Go(func() error { return a.s.persistPlan(plan) }) // beside the writing: both wait for the disk
	both.Go(func() error {
		var g errgroup.Group
		g.SetLimit(stagers)
		for _, j := range files {
			g.Go(func() error {
				if err := a.fill(j, writers[j], each); err != nil {
					a.failed(j, err)
				}
				return nil
			})
		}
		_ = g.Wait()
		if each {
			return nil
		}
		return a.fs.SyncFS()
	})
	if err := both.Wait(); err != nil {
		for _, j := range a.jobs {
			if j.outcome == 0 {
				a.failed(j, fmt.Errorf("prepare: %w", err))
			}
		}
	}
}

// makeRoom refuses what would eat into the reserve. What is refused here is
// tried again by the loop; nothing else waits for it.
func (a *applier) makeRoom() {
	var need int64
	for _, j := range a.jobs {
		if j.step.Op == PutFile {
			need += j.step.New.Entry.Size
		}
	}
	if need == 0 {
		return
	}
	free, err := a.fs.Free()
	if err != nil {
		return // the write will tell
	}
	free -= a.s.cfg.Reserve
	for _, j := range a.jobs {
		if j.step.Op != PutFile {
			continue
		}
		if size := j.step.New.Entry.Size; size <= free {
			free -= size
		} else { // the smaller ones behind it need not wait
			j.end(StepNoRoom, fmt.Errorf("no space for %d bytes in %s (%d are kept in reserve): free some, and it goes on by itself",
				j.step.New.Entry.Size, a.fs.Path(), a.s.cfg.Reserve))
		}
	}
}

// create makes the staged name of a job, and notes its inode.
func (a *applier) create(j *job, writers map[*job]vfs.WFile) error {
	switch j.step.Op {
	case PutFile:
		j.name = a.s.stagedName()
		w, err := a.fs.Create(j.name, j.step.New.Entry.Mode)
		if err != nil {
			return err
		}
		st, err := w.Stat()
		if err != nil {
			return errors.Join(err, w.Close())
		}
		j.ino, writers[j] = st.Ino, w
	case PutSymlink:
		j.name = a.s.stagedName()
		if err := a.fs.StageLink(j.name, j.step.New.Entry.Target); err != nil {
			return err
		}
		st, err := a.fs.StatStaged(j.name)
		if err != nil {
			return err
		}
		j.ino, j.mtime = st.Ino, st.MTime
	case Remove, PutDir:
		if k := j.step.Expect.Entry.Kind; k == manifest.File || k == manifest.Symlink {
			j.name = a.s.stagedName() // what is taken out goes there
		}
	}
	return nil
}

// fill writes a job's content, gives it its times and closes it.
func (a *applier) fill(j *job, w vfs.WFile, flush bool) (err error) {
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := a.copyContent(w, j.step.New.Entry); err != nil {
		return err
	}
	old := j.step.Expect.Stamp.MTime
	if err := w.Chtimes(freshMTime(a.s.cfg.Now(), old)); err != nil {
		return err
	}
	st, err := w.Stat()
	if err != nil {
		return err
	}
	j.mtime = st.MTime // as coarse as the file system made it
	if flush {
		return w.Sync()
	}
	return nil
}

// copyContent copies a blob; the reader verifies it.
func (a *applier) copyContent(w vfs.WFile, e manifest.Entry) error {
	r, err := a.s.cfg.Blobs.Open(e.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, min(copyChunk, max(e.Size, 512)))
	var sinceSync, total int64
	for {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			total += int64(n)
			if sinceSync += int64(n); sinceSync >= syncEvery {
				sinceSync = 0
				if err := w.Sync(); err != nil {
					return err
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if total != e.Size {
				return fmt.Errorf("blob %s has %d bytes, not %d", e.Digest.Short(), total, e.Size)
			}
			return nil
		case err != nil:
			return err
		}
	}
}
