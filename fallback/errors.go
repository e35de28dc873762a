package fallback

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
)

var (
	// ErrClosed: the Push was closed.
	ErrClosed = errors.New("the node is shutting down")
	// ErrNoSource: nobody is there to fetch from.
	ErrNoSource = errors.New("no other member to fetch from: the content comes when one is back")

	errReplaced = errors.New("the peer's store was replaced meanwhile")
	errBroken   = errors.New("the other end could not read it from its store: run gatesync verify there")
)

// ShortError: fewer stores than wanted hold the content durably.
type ShortError struct {
	Have   []manifest.Receipt
	Failed map[cluster.NodeID]error
	Err    error // the context's, nil where every peer has answered
}

func (e *ShortError) Error() string {
	why := make([]string, 0, len(e.Failed))
	for id, err := range e.Failed {
		why = append(why, fmt.Sprintf("%s: %v", id, err))
	}
	slices.Sort(why)
	s := fmt.Sprintf("the content is on %d stores, which is not enough; it is tried again", len(e.Have))
	if len(why) > 0 {
		s += " (" + strings.Join(why, "; ") + ")"
	}
	return s
}

// Unwrap returns the context's error.
func (e *ShortError) Unwrap() error { return e.Err }

// RefusedError: a peer did not take a batch.
type RefusedError struct {
	Peer cluster.NodeID
	Why  string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s refused the content: %s", e.Peer, e.Why)
}

// StalledError: a peer stopped reading or answering.
type StalledError struct {
	Peer  cluster.NodeID
	After time.Duration
}

func (e *StalledError) Error() string {
	return fmt.Sprintf("%s made no progress for %s: its disk or the network hangs", e.Peer, e.After)
}

// BehindError: so much is on its way to a peer that no more is begun; the peer
// fetches later what it lacks.
type BehindError struct {
	Peer      cluster.NodeID
	Transfers int
}

func (e *BehindError) Error() string {
	return fmt.Sprintf("%s is %d transfers behind and fetches the rest by itself", e.Peer, e.Transfers)
}

// ProtocolError: a peer sent what no gatesync sends.
type ProtocolError struct {
	Peer cluster.NodeID // "" at the receiving end
	What string
}

func (e *ProtocolError) Error() string {
	if e.Peer == "" {
		return "protocol broken: " + e.What
	}
	return fmt.Sprintf("%s broke the protocol: %s: is its version the same?", e.Peer, e.What)
}

// NotHeldError: a blob that was to be sent is not in this store.
type NotHeldError struct{ Ref manifest.BlobRef }

func (e *NotHeldError) Error() string {
	return fmt.Sprintf("blob %s of %d bytes is not in this node's store", e.Ref.Digest.Short(), e.Ref.Size)
}

// MissingError: a peer does not hold a blob.
type MissingError struct {
	Peer   cluster.NodeID
	Digest manifest.Digest
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s does not hold blob %s", e.Peer, e.Digest.Short())
}

// IncompleteError: some of what was to be fetched did not come. The reason of
// each went to Fetch's done.
type IncompleteError struct {
	Missing, Wanted int
	First           error // of the reasons
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%d of %d blobs could not be fetched: %v", e.Missing, e.Wanted, e.First)
}

// Unwrap returns the first reason.
func (e *IncompleteError) Unwrap() error { return e.First }
