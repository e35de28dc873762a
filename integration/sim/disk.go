package sim

import (
	"slices"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// disk models one tree on one machine. Entries hold content, not digests.
type disk struct {
	at    map[manifest.Path]*inode
	clock int64 // gives every change its own times and inode numbers
}

type inode struct {
	kind    manifest.Kind
	mode    uint32
	text    string
	writing bool   // somebody has it open for writing
	flushed string // what a power cut leaves of text
	stamp   syncer.Stamp
}

func newDisk() *disk { return &disk{at: map[manifest.Path]*inode{}} }

func (d *disk) touch(i *inode, fresh bool) {
	d.clock++
	if fresh {
		i.stamp.Ino = uint64(d.clock)
	}
	i.stamp.Size, i.stamp.MTime, i.stamp.CTime = int64(len(i.text)), d.clock, d.clock
}

func (d *disk) isDir(p manifest.Path) bool {
	if p == "" {
		return true
	}
	i := d.at[p]
	return i != nil && i.kind == manifest.Dir
}

// mkdir makes p and what is missing above it; false where a file is in the way.
func (d *disk) mkdir(p manifest.Path) bool {
	if p == "" || d.isDir(p) {
		return true
	}
	if d.at[p] != nil || !d.mkdir(p.Dir()) {
		return false
	}
	i := &inode{kind: manifest.Dir, mode: 0o755}
	d.touch(i, true)
	d.at[p] = i
	return true
}

// put makes or replaces a file by a new inode.
func (d *disk) put(p manifest.Path, text string, mode uint32) *inode {
	i := &inode{kind: manifest.File, mode: mode, text: text}
	d.touch(i, true)
	d.at[p] = i
	return i
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

func (d *disk) removeAll(p manifest.Path) {
	for _, q := range d.below(p) {
		delete(d.at, q)
	}
	delete(d.at, p)
}

// rename moves a file or a whole directory; inodes stay what they are.
func (d *disk) rename(from, to manifest.Path) {
	moved := map[manifest.Path]*inode{to: d.at[from]}
	for _, p := range d.below(from) {
		moved[to+p[len(from):]] = d.at[p]
	}
	d.removeAll(from)
	for p, i := range moved {
		d.at[p] = i
	}
	d.clock++
	d.at[to].stamp.CTime = d.clock
}

// entry is what a look sees.
func (i *inode) entry() manifest.Entry {
	if i == nil {
		return manifest.Entry{}
	}
	e := manifest.Entry{Kind: i.kind, Mode: i.mode, MTime: i.stamp.MTime}
	if i.kind == manifest.File {
		e.Size, e.Digest = int64(len(i.text)), manifest.DigestOf([]byte(i.text))
	}
	return e
}

// powerCut leaves what was flushed. A file that the log already holds may be
// left empty (the case that the ancestor must not be fooled by); what the log
// does not hold is as it was before its writer came.
func (d *disk) powerCut(committed func(manifest.Path) manifest.Digest) {
	for _, p := range d.below("") {
		i := d.at[p]
		i.writing = false
		if i.kind != manifest.File || i.text == i.flushed {
			continue
		}
		switch {
		case committed(p) == manifest.DigestOf([]byte(i.text)):
			i.text = ""
		case i.flushed == "":
			delete(d.at, p)
			continue
		default:
			i.text = i.flushed
		}
		d.touch(i, false)
	}
}
