package blob

import (
	"errors"
	"fmt"

	"github.com/gatesync/gatesync/manifest"
)

var (
	// ErrNotFound: the store does not hold the blob. See NotFoundError.
	ErrNotFound = errors.New("blob not found")
	// ErrMismatch: the content is not what was announced. See MismatchError.
	ErrMismatch = errors.New("content does not match its digest")
	// ErrNoRoom: too little space. See RoomError.
	ErrNoRoom = errors.New("not enough space")
	// ErrNotBegun: the beginning of the blob is not here, any more.
	ErrNotBegun = errors.New("the beginning of the blob is not here")
	// ErrCorrupt: stored content has changed on disk. See CorruptError.
	ErrCorrupt = errors.New("stored content is corrupt")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the blob store is closed")
	// ErrLost: content that was put could neither be flushed nor read back.
	// Nothing can be promised any more; the store has to be opened again.
	ErrLost = errors.New("the disk lost content before it was flushed; check the disk, then restart")
)

// NotFoundError names the blob that is not here.
type NotFoundError struct{ Digest manifest.Digest }

func (e *NotFoundError) Error() string { return fmt.Sprintf("blob %s not found", e.Digest.Short()) }

// Is makes it an ErrNotFound.
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

// MismatchError says what was announced and what came.
type MismatchError struct{ Want, Have manifest.BlobRef }

func (e *MismatchError) Error() string {
	if e.Have.Size > e.Want.Size {
		return fmt.Sprintf("content of blob %s is longer than the announced %d bytes", e.Want.Digest.Short(), e.Want.Size)
	}
	return fmt.Sprintf("content does not match: announced %s of %d bytes, received %s of %d bytes",
		e.Want.Digest.Short(), e.Want.Size, e.Have.Digest.Short(), e.Have.Size)
}

// Is makes it an ErrMismatch.
func (e *MismatchError) Is(target error) bool { return target == ErrMismatch }

// RoomError says how much space is missing.
type RoomError struct {
	Dir                 string
	Need, Free, Reserve int64
	Cause               error // of the system (ENOSPC, EDQUOT); nil where the reserve refused
}

func (e *RoomError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("no space for %d bytes in %s: %v; free some, and it goes on by itself", e.Need, e.Dir, e.Cause)
	}
	return fmt.Sprintf("no space for %d bytes in %s: %d are free and %d are kept in reserve; free some, and it goes on by itself",
		e.Need, e.Dir, e.Free, e.Reserve)
}

// Is makes it an ErrNoRoom.
func (e *RoomError) Is(target error) bool { return target == ErrNoRoom }

func (e *RoomError) Unwrap() error { return e.Cause }

// CorruptError says which stored content has changed, and where it lies.
type CorruptError struct {
	Digest manifest.Digest
	File   string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("blob %s in %s is corrupt; it is fetched anew when it is needed, check the disk", e.Digest.Short(), e.File)
}

// Is makes it an ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Damage is a stretch of a pack that held no readable record when the store
// was opened.
type Damage struct {
	File   string
	Offset int64
	Bytes  int64
	Cut    bool // it was the unflushed tail of the newest pack, and was cut off
}

func (d Damage) String() string {
	if d.Cut {
		return fmt.Sprintf("%s: %d unfinished bytes cut off at %d", d.File, d.Bytes, d.Offset)
	}
	return fmt.Sprintf("%s: %d unreadable bytes at %d", d.File, d.Bytes, d.Offset)
}
