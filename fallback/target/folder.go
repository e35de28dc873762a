package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/delta"
	"github.com/gatesync/gatesync/manifest"
)

// Folder is a directory as a source. It is only read.
type Folder struct {
	root *os.Root

	mu     sync.Mutex
	stamps map[manifest.Path]stamp // of large files, when they were digested
}

// stamp tells whether a file was written, as far as stat knows.
type stamp struct {
	ino, size, mtime, ctime int64
}

func stampOf(f *os.File) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return stamp{}, err
	}
	return stamp{int64(st.Ino), st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// OpenFolder opens a directory.
func OpenFolder(dir string) (*Folder, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("the folder to push: %w", err)
	}
	return &Folder{root: r, stamps: map[manifest.Path]stamp{}}, nil
}

// Close lets go of it.
func (f *Folder) Close() error { return f.root.Close() }

// Old implements Source: a folder has no past.
func (f *Folder) Old(context.Context, manifest.Digest) (io.ReadCloser, error) { return nil, ErrNoOld }

// folderScan is one walk of a folder.
type folderScan struct {
	f     *Folder
	ctx   context.Context
	files errgroup.Group

	mu    sync.Mutex
	m     *manifest.Manifest
	lines []Line
}

// Tree implements Source. What is being written, cannot be read, or can stand
// in no tree, is left out and named.
func (f *Folder) Tree(ctx context.Context, _ string) (*manifest.Manifest, []Line, error) {
	s := &folderScan{f: f, ctx: ctx, m: manifest.New()}
	s.files.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	err := s.dir("")
	if werr := s.files.Wait(); err == nil {
		err = werr
	}
	if err == nil {
		err = ctx.Err()
	}
	return s.m, s.lines, err
}

func (s *folderScan) leave(p manifest.Path, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, Line{p, WhatFailed, why, 0})
}

func (s *folderScan) set(p manifest.Path, e manifest.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m.Set(p, manifest.Node{Entry: e})
}

func name(p manifest.Path) string {
	if p == "" {
		return "."
	}
	return string(p)
}

// dir walks a directory; the files in it are read beside the walk.
func (s *folderScan) dir(dir manifest.Path) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	d, err := s.f.root.Open(name(dir))
	if err == nil {
		var entries []fs.DirEntry
		entries, err = d.ReadDir(-1)
		_ = d.Close()
		for _, e := range entries {
			if err := s.entry(dir, e.Name()); err != nil {
				return err
			}
		}
	}
	switch {
	case err == nil:
		return nil
	case dir == "":
		return fmt.Errorf("the folder to push: %w", err)
	}
	s.leave(dir, err.Error())
	return nil
}

func (s *folderScan) entry(dir manifest.Path, base string) error {
	p := dir.Join(base)
	if p == manifest.MarkerDir {
		return nil
	}
	if why := p.Unfit(); why != "" {
		s.leave(p, why)
		return nil
	}
	st, err := s.f.root.Lstat(string(p))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		s.leave(p, err.Error())
		return nil
	}
	e := manifest.Entry{Mode: uint32(st.Mode().Perm()), MTime: st.ModTime().UnixNano()}
	switch st.Mode().Type() {
	case fs.ModeDir:
		e.Kind, e.MTime = manifest.Dir, 0
		s.set(p, e)
		return s.dir(p)
	case fs.ModeSymlink:
		target, err := s.f.root.Readlink(string(p))
		if err == nil {
			err = manifest.CheckLink(p, target)
		}
		if err != nil {
			s.leave(p, err.Error())
			return nil
		}
		s.set(p, manifest.Entry{Kind: manifest.Symlink, Mode: 0o777, Size: int64(len(target)), Digest: manifest.DigestOf([]byte(target)), Target: target})
	case 0:
		s.files.Go(func() error { s.file(p, e); return nil })
	default:
		s.leave(p, "is a device, a FIFO or a socket")
	}
	return nil
}

// file reads one file.
func (s *folderScan) file(p manifest.Path, e manifest.Entry) {
	if s.ctx.Err() != nil {
		return
	}
	file, err := s.f.open(p)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.leave(p, err.Error())
		}
		return
	}
	defer file.Close()
	before, err := file.Stat()
	if err == nil {
		h := manifest.NewHasher()
		e.Kind = manifest.File
		e.Size, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{file}, make([]byte, min(256<<10, before.Size()+512)))
		e.Digest = h.Digest()
	}
	var after fs.FileInfo
	if err == nil {
		after, err = file.Stat()
	}
	switch {
	case err != nil:
		s.leave(p, err.Error())
	case after.ModTime() != before.ModTime() || after.Size() != e.Size:
		s.leave(p, "was written while it was read: push again")
	default:
		s.set(p, e)
		s.f.remember(p, file, e.Size)
	}
}

// remember notes how a large file was when it was digested.
func (f *Folder) remember(p manifest.Path, file *os.File, size int64) {
	if size <= delta.SmallLimit {
		return
	}
	if st, err := stampOf(file); err == nil && st.size == size {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.stamps[p] = st
	}
}

// largeFile vouches for what is read of it.
type largeFile struct {
	*os.File
	was stamp
}

// Unchanged implements vouching.
func (f largeFile) Unchanged() bool {
	st, err := stampOf(f.File)
	return err == nil && st == f.was
}

// open opens a regular file that nobody has open for writing.
func (f *Folder) open(p manifest.Path) (*os.File, error) {
	file, err := f.root.OpenFile(string(p), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("is no regular file any more")
	}
	// A read lease is refused while somebody has the file open for writing. Where
	// leases do not work, or it is another user's file, nothing can be told.
	if err == nil {
		if _, lerr := unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_RDLCK); lerr == nil {
			_, _ = unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		} else if errors.Is(lerr, unix.EAGAIN) && !onNFS(file.Fd()) {
			err = errors.New("somebody is writing it: push again when that is done")
		}
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// onNFS: there a lease is refused although nobody writes.
func onNFS(fd uintptr) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(fd), &st) == nil && st.Type == unix.NFS_SUPER_MAGIC
}

// Open implements Source.
func (f *Folder) Open(_ context.Context, _ string, p manifest.Path, _ manifest.BlobRef) (io.ReadCloser, error) {
	file, err := f.open(p)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if was, ok := f.stamps[p]; ok {
		return largeFile{file, was}, nil
	}
	return file, nil
}
