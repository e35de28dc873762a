package manifest

import (
	"fmt"
	"time"
)

// Kind is what stands at a path.
type Kind uint8

const (
	// File is a regular file.
	File Kind = 1
	// Dir is a directory. Directories are entries of their own, empty or not.
	Dir Kind = 2
	// Symlink is a symbolic link with a relative target inside the root.
	Symlink Kind = 3
)

func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case Dir:
		return "dir"
	case Symlink:
		return "symlink"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Revision numbers committed changesets of a cluster: 1, 2, 3 … Zero means
// "never": the expected revision of a path that is absent.
type Revision uint64

// Entry is what stands at one path. The zero Entry means absent.
type Entry struct {
	Kind   Kind
	Mode   uint32 // permission bits (0o777) after the tree's policy; always 0o777 for a symlink
	Size   int64  // bytes of content; 0 for a directory, the target's length for a symlink
	MTime  int64  // Unix nanoseconds; carried, never compared
	Digest Digest // of the content, or of the symlink's target; zero for a directory
	Target string // of a symlink
}

// Absent tells whether e stands for nothing.
func (e Entry) Absent() bool { return e.Kind == 0 }

// IsDir tells whether e is a directory.
func (e Entry) IsDir() bool { return e.Kind == Dir }

// IsLeaf tells whether e is a file or a symlink: what counts, where a directory
// only holds what counts.
func (e Entry) IsLeaf() bool { return !e.Absent() && !e.IsDir() }

// HasContent tells whether a blob stands behind e.
func (e Entry) HasContent() bool { return e.Kind == File }

// Same compares identity: everything but the mtime.
func (e Entry) Same(o Entry) bool {
	return e.Kind == o.Kind && e.Mode == o.Mode && e.Size == o.Size && e.Digest == o.Digest && e.Target == o.Target
}

// SameContent compares what a reader of the path would read, whatever the mode.
func (e Entry) SameContent(o Entry) bool {
	return e.Kind == o.Kind && e.Size == o.Size && e.Digest == o.Digest && e.Target == o.Target
}

func (e Entry) String() string {
	switch e.Kind {
	case 0:
		return "absent"
	case Dir:
		return fmt.Sprintf("dir %04o", e.Mode)
	case Symlink:
		return fmt.Sprintf("symlink -> %q", e.Target)
	}
	return fmt.Sprintf("%s %04o %d bytes %s %s", e.Kind, e.Mode, e.Size, e.Digest.Short(), time.Unix(0, e.MTime).UTC().Format(time.RFC3339))
}

// Node is an entry as the log knows it.
type Node struct {
	Entry    Entry
	Revision Revision // that last changed the path
	Author   string   // id of the node that proposed that revision
}

// Validate tells what makes e an entry that no tree can hold. The absent entry
// is valid.
func (e Entry) Validate() error {
	switch {
	case e.Absent() && e != Entry{}:
		return fmt.Errorf("nothing stands there, and yet it has properties")
	case e.Absent():
		return nil
	case e.Kind > Symlink:
		return fmt.Errorf("unknown %s", e.Kind)
	case e.Mode&^0o777 != 0:
		return fmt.Errorf("mode %o has more than permission bits", e.Mode)
	case e.Size < 0:
		return fmt.Errorf("negative size %d", e.Size)
	case e.Size > MaxSize:
		return fmt.Errorf("a size of %d bytes, the limit is %d", e.Size, int64(MaxSize))
	case e.Kind == Dir && (e.Size != 0 || !e.Digest.IsZero() || e.Target != ""):
		return fmt.Errorf("a directory has no content")
	case e.Kind == File && (e.Digest.IsZero() || e.Target != ""):
		return fmt.Errorf("a file needs a digest and has no target")
	case e.Kind == Symlink && (e.Target == "" || len(e.Target) > MaxPath):
		return fmt.Errorf("a symlink needs a target of at most %d bytes", MaxPath)
	case e.Kind == Symlink && (e.Mode != 0o777 || e.Size != int64(len(e.Target)) || e.Digest != DigestOf([]byte(e.Target))):
		// No disk could ever show it like this: it would differ for ever.
		return fmt.Errorf("a symlink's mode, size or digest is not that of its target")
	}
	return nil
}

// BlobRef names content: a digest and its size in bytes.
type BlobRef struct {
	Digest Digest
	Size   int64
}

// Bases are hints: by digest, the content that it replaces, or is like for
// another reason. Who holds that needs only what differs. nil: nobody knows any.
type Bases map[Digest]Digest

// Note adds that content stands in another's place. What has no content is left out.
func (b Bases) Note(content, base Entry) {
	if content.HasContent() && base.HasContent() && content.Digest != base.Digest {
		b[content.Digest] = base.Digest
	}
}

// Replaced is the content that stands where the changes are.
func (v View) Replaced(changes []Change) Bases {
	if v.Manifest == nil {
		return nil
	}
	bases := Bases{}
	for _, c := range changes {
		if was, ok := v.Manifest.Get(c.Path); ok {
			bases.Note(c.New, was.Entry)
		}
	}
	return bases
}

// Blob returns the reference to e's content.
func (e Entry) Blob() BlobRef { return BlobRef{e.Digest, e.Size} }

// View is a tree as committed at a revision: immutable, free to share.
type View struct {
	Tree     string
	Revision Revision // newest of the cluster, not of the tree alone
	Manifest *Manifest
}
