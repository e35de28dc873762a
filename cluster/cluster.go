package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
)

// NodeID names one daemon. It survives a change of address and dies with its
// data directory.
type NodeID string

// NewNodeID makes an id that nobody else has: "n-" and 16 hex digits.
func NewNodeID() NodeID { return NodeID("n-" + random(8)) }

// NewClusterID makes a cluster's id: "c-" and 16 hex digits.
func NewClusterID() string { return "c-" + random(8) }

// NewTreeID makes a tree's id: "t-" and 16 hex digits.
func NewTreeID() string { return "t-" + random(8) }

// NewStoreID makes a blob store's id: "s-" and 32 hex digits.
func NewStoreID() string { return "s-" + random(16) }

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// Role is a member's part in the cluster.
type Role string

const (
	// Voter takes part in elections and counts for majorities.
	Voter Role = "voter"
	// NonVoter receives the log and waits for promotion.
	NonVoter Role = "nonvoter"
	// Follower takes no part in Raft: it watches the log over one stream that it
	// dials itself, from a member of Raft or from another follower.
	Follower Role = "follower"
)

// Member is one node of the cluster.
type Member struct {
	ID      NodeID
	Name    string
	Address string // host:port, a hint
	Store   string // uuid of its blob store
	Role    Role
	Wish    Role   // the role that an operator chose; "": the cluster decides
	Witness bool   // it has no tree: it holds the log and the content
	Joined  int64  // Unix nanoseconds
	Epoch   uint64 // of the announcement of Address; the greater wins
	Format  uint32 // newest format of the log that it said to understand; 0: the first
}

// ErrNoQuorum: no majority of voters answers; nothing can be committed now.
var ErrNoQuorum = errors.New("no quorum: a majority of the voters is not reachable")

// ErrNotMember: the node is not (or no longer) a member of this cluster.
var ErrNotMember = errors.New("not a member of this cluster")

// NotLeaderError says that a command has to go to another node.
type NotLeaderError struct{ Leader NodeID } // "" where none is known

func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "not the leader, and no leader is known"
	}
	return fmt.Sprintf("not the leader; %s is", e.Leader)
}

// ErrNotCommitted: what was proposed is not in the log, and this attempt will
// not bring it there any more. An error of a proposal without it leaves that
// open.
var ErrNotCommitted = errors.New("nothing was committed")

// NotCommitted says of an error that nothing was committed, and keeps
// everything else that it says. Only who knows where the proposal went may say so.
func NotCommitted(err error) error {
	if err == nil || errors.Is(err, ErrNotCommitted) {
		return err
	}
	return &notCommittedError{err}
}

type notCommittedError struct{ err error }

func (e *notCommittedError) Error() string {
	return e.err.Error() + " (" + ErrNotCommitted.Error() + ")"
}

func (e *notCommittedError) Unwrap() []error { return []error{e.err, ErrNotCommitted} }

// OutcomeUnknown says of an error that the proposal may have been committed, or
// may yet be, whatever a part of it says about the last attempt.
func OutcomeUnknown(err error) error {
	if err == nil {
		return nil
	}
	return &unknownError{err}
}

type unknownError struct{ err error }

func (e *unknownError) Error() string {
	return e.err.Error() + " (the outcome is unknown: it may have been committed, or may yet be)"
}

// Is finds everything in the error but ErrNotCommitted.
func (e *unknownError) Is(target error) bool {
	return target != ErrNotCommitted && errors.Is(e.err, target)
}

// As finds what is in the error.
func (e *unknownError) As(target any) bool { return errors.As(e.err, target) }
