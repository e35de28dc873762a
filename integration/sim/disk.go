package sim

import (
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// disk models one tree on one machine. Entries hold content, not digests.
type disk struct {
	at      map[manifest.Path]*inode
	inos    uint64
	changed func(p manifest.Path, was *inode)  // told before a change; nil: nobody is
	placed  map[manifest.Path]map[written]bool // by daemons, ever
	late    map[manifest.Path]map[written]bool // of that, by those that were not stewards any more
	undo    []func()                           // of what changed in directories and modes since the last flush, oldest first
}

type inode struct {
	kind    manifest.Kind
	mode    uint32
	text    string // content, or a symlink's target
	writers int    // that have it open for writing
	flushed string // what a power cut leaves of text
	torn    bool   // by a power cut
	edit    bool   // what it is a gateway has made it: no daemon has put it there, or changed it since
	stamp   syncer.Stamp
}

func newDisk() *disk {
	return &disk{at: map[manifest.Path]*inode{}, placed: map[manifest.Path]map[written]bool{}, late: map[manifest.Path]map[written]bool{}}
}

// tick is how coarse the kernel's clock for files is.
const tick = 4 * time.Millisecond

// touch gives an inode the time of a change; content tells that its content
// changed too.
func (i *inode) touch(wall int64, content bool) {
	wall -= wall % int64(tick)
	i.stamp.CTime = wall
	if content {
		i.stamp.MTime, i.stamp.Size = wall, int64(len(i.text))
	}
}

func (d *disk) make(kind manifest.Kind, mode uint32, text string, wall int64) *inode {
	d.inos++
	i := &inode{kind: kind, mode: mode, text: text}
	i.stamp.Ino = d.inos
	i.touch(wall, true)
	return i
}

// set puts an inode at p; nil takes away what stands there.
func (d *disk) set(p manifest.Path, i *inode) {
	old := d.at[p]
	if d.changed != nil {
		d.changed(p, old)
	}
	d.undo = append(d.undo, func() { d.restore(p, old) })
	d.restore(p, i)
}

func (d *disk) restore(p manifest.Path, i *inode) {
	if i == nil {
		delete(d.at, p)
	} else {
		d.at[p] = i
	}
}

func (d *disk) chmod(i *inode, mode uint32, wall int64) {
	was, stamp := i.mode, i.stamp
	d.undo = append(d.undo, func() { i.mode, i.stamp.CTime = was, stamp.CTime })
	i.mode = mode
	i.touch(wall, false)
}

// flush makes directories and modes durable: all of them, as a journal does.
func (d *disk) flush() { d.undo = nil }

// sync makes a file's content durable. Half a write that survives a power cut
// is nobody's to see.
func (i *inode) sync() {
	if i.writers == 0 {
		i.flushed = i.text
	}
}

func (d *disk) isDir(p manifest.Path) bool {
	if p == "" {
		return true
	}
	i := d.at[p]
	return i != nil && i.kind == manifest.Dir
}

// mkdir makes p and what is missing above it; false where a file is in the way.
func (d *disk) mkdir(p manifest.Path, wall int64) bool {
	if d.isDir(p) {
		return true
	}
	if d.at[p] != nil || !d.mkdir(p.Dir(), wall) {
		return false
	}
	d.set(p, d.make(manifest.Dir, 0o755, "", wall))
	return true
}

// put makes or replaces a file by a new inode.
func (d *disk) put(p manifest.Path, text string, wall int64) *inode {
	i := d.make(manifest.File, 0o644, text, wall)
	d.set(p, i)
	return i
}

// place notes that a daemon has made p what it is.
func (d *disk) place(p manifest.Path) {
	note(d.placed, p, writtenOf(d.at[p].entry()))
	if i := d.at[p]; i != nil {
		i.edit = false
	}
}

// bare tells whether no file or symlink stands on the disk.
func (d *disk) bare() bool {
	for _, i := range d.at {
		if !i.entry().IsDir() {
			return false
		}
	}
	return true
}

// below lists what stands below dir, in order.
func (d *disk) below(dir manifest.Path) []manifest.Path {
	var out []manifest.Path
	for p := range d.at {
		if p.Under(dir) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, manifest.Compare)
	return out
}

// tornIn tells whether a power cut has torn p or anything below it.
func (d *disk) tornIn(p manifest.Path) bool {
	return slices.ContainsFunc(append(d.below(p), p), func(q manifest.Path) bool { return d.at[q] != nil && d.at[q].torn })
}

// rename moves a file or a whole directory to where nothing stands; inodes
// stay what they are.
func (d *disk) rename(from, to manifest.Path, wall int64) {
	begun := len(d.undo)
	for _, p := range append([]manifest.Path{from}, d.below(from)...) {
		i := d.at[p]
		d.set(p, nil)
		d.set(to+p[len(from):], i)
	}
	d.at[to].touch(wall, false)
	steps := slices.Clone(d.undo[begun:])
	d.undo = append(d.undo[:begun], func() { // all of it or nothing
		for _, undo := range slices.Backward(steps) {
			undo()
		}
	})
}

// entry is what a look sees.
func (i *inode) entry() manifest.Entry {
	if i == nil {
		return manifest.Entry{}
	}
	e := manifest.Entry{Kind: i.kind, Mode: i.mode, MTime: i.stamp.MTime}
	switch i.kind {
	case manifest.File:
		e.Size, e.Digest = int64(len(i.text)), manifest.DigestOf([]byte(i.text))
	case manifest.Symlink:
		e.Size, e.Digest, e.Target = int64(len(i.text)), manifest.DigestOf([]byte(i.text)), i.text
	}
	return e
}

// seen is the stamp that a look or a step tells: of a directory only its inode.
func (i *inode) seen() syncer.Stamp {
	if i.kind == manifest.Dir {
		return syncer.Stamp{Ino: i.stamp.Ino}
	}
	return i.stamp
}
