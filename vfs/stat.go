package vfs

import (
	"github.com/gatesync/gatesync/manifest"
	"golang.org/x/sys/unix"
)

// Kind is what stands at a path: manifest.File, Dir, Symlink or Other.
type Kind = manifest.Kind

// Other is what no tree can hold: a device, a FIFO, a socket.
const Other Kind = 0x7f

// Stat is what lstat tells, as far as anybody here asks.
type Stat struct {
	Kind  Kind
	Mode  uint32 // permission, setuid, setgid and sticky bits (0o7777)
	Size  int64
	MTime int64 // Unix nanoseconds
	CTime int64 // Unix nanoseconds
	Ino   uint64
	Dev   uint64 // comparable within one run only
	Nlink uint64
	UID   uint32
	GID   uint32
}

// SameFile tells whether two looks saw one inode.
func (s Stat) SameFile(o Stat) bool { return s.Ino == o.Ino && s.Dev == o.Dev }

// Entry is a name in a directory.
type Entry struct {
	Name string // raw bytes, not necessarily UTF-8
	Stat Stat
}

func statOf(st *unix.Stat_t) Stat {
	kind := Other
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		kind = manifest.File
	case unix.S_IFDIR:
		kind = manifest.Dir
	case unix.S_IFLNK:
		kind = manifest.Symlink
	}
	return Stat{
		Kind:  kind,
		Mode:  st.Mode & 0o7777,
		Size:  st.Size,
		MTime: unix.TimespecToNsec(st.Mtim),
		CTime: unix.TimespecToNsec(st.Ctim),
		Ino:   st.Ino,
		Dev:   uint64(st.Dev),   //nolint:unconvert // narrower on some platforms
		Nlink: uint64(st.Nlink), //nolint:unconvert // narrower on some platforms
		UID:   st.Uid,
		GID:   st.Gid,
	}
}
