package raftstore

import (
	"fmt"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Code says how a command ended. Codes are part of the log's meaning: they are
// only ever added.
type Code uint32

const (
	// Done: the command is in force. For a changeset, Result tells of each path.
	Done Code = 0
	// CodeMalformed: the command makes no sense to any version.
	CodeMalformed Code = 1
	// CodeFormat: the command is of a format that this version does not know.
	CodeFormat Code = 2
	// CodeUnknownTree: the cluster has no tree of that name.
	CodeUnknownTree Code = 3
	// CodeNotMember: the proposer is not, or no longer, a member.
	CodeNotMember Code = 4
	// CodeReceipts: too few voters have the content on their disks.
	CodeReceipts Code = 5
	// CodeStale: the sequence is older than the outcomes that are remembered.
	CodeStale Code = 6
	// CodeParts: a part came without the parts before it; send them again.
	CodeParts Code = 7
	// CodeTooLarge: a changeset, all parts together, is over the limit.
	CodeTooLarge Code = 8
	// CodeTokenUnknown: no such token, or it was pruned long after it expired.
	CodeTokenUnknown Code = 9
	// CodeTokenExpired: by the clock of the node that let the joiner in.
	CodeTokenExpired Code = 10
	// CodeTokenUsedUp: the token was redeemed as often as it may be.
	CodeTokenUsedUp Code = 11
	// CodeTokenSecret: the secret is not the token's.
	CodeTokenSecret Code = 12
	// CodeNameTaken: another member has that name.
	CodeNameTaken Code = 13
	// CodeRemoved: the id belongs to a member that was removed; ids never come back.
	CodeRemoved Code = 14
	// CodeMemberExists: a token cannot take over the id of a present member.
	CodeMemberExists Code = 15
	// CodeInitialized: the log already belongs to another cluster.
	CodeInitialized Code = 16
	// CodeAuthority: the CA is not in the state that the command is about.
	CodeAuthority Code = 40
	// CodeMount: the mount is not what the command takes it for.
	CodeMount Code = 50
	// CodeTarget: the target is not what the command takes it for.
	CodeTarget Code = 80
)

func (c Code) String() string {
	switch c {
	case Done:
		return "done"
	case CodeMalformed:
		return "malformed command"
	case CodeFormat:
		return "unknown command format"
	case CodeUnknownTree:
		return "unknown tree"
	case CodeNotMember:
		return "not a member"
	case CodeReceipts:
		return "too few receipts"
	case CodeStale:
		return "stale sequence"
	case CodeParts:
		return "missing parts"
	case CodeTooLarge:
		return "changeset too large"
	case CodeTokenUnknown:
		return "unknown token"
	case CodeTokenExpired:
		return "expired token"
	case CodeTokenUsedUp:
		return "token used up"
	case CodeTokenSecret:
		return "wrong token secret"
	case CodeNameTaken:
		return "name taken"
	case CodeRemoved:
		return "removed member"
	case CodeMemberExists:
		return "member exists"
	case CodeInitialized:
		return "already initialized"
	case CodeAuthority:
		return "not this CA's turn"
	case CodeMount:
		return "not this mount's state"
	case CodeTarget:
		return "not this target's state"
	}
	return fmt.Sprintf("code(%d)", uint32(c))
}

// OutcomeError is an outcome that is not Done, as an error.
type OutcomeError struct {
	Code    Code
	Message string // for people; says what to do next
}

func (e *OutcomeError) Error() string { return e.Message }

// Unwrap lets errors.Is find the sentinels of package cluster.
func (e *OutcomeError) Unwrap() error {
	if e.Code == CodeNotMember || e.Code == CodeRemoved {
		return cluster.ErrNotMember
	}
	return nil
}

// OutcomeErr returns nil for an outcome that is Done, else an *OutcomeError.
func OutcomeErr(o *pb.Outcome) error {
	if o.GetCode() == uint32(Done) {
		return nil
	}
	e := &OutcomeError{Code: Code(o.GetCode()), Message: o.GetMessage()}
	if e.Message == "" {
		e.Message = e.Code.String()
	}
	return e
}

func done() *pb.Outcome { return &pb.Outcome{} }

func refuse(c Code, format string, args ...any) *pb.Outcome {
	return &pb.Outcome{Code: uint32(c), Message: fmt.Sprintf(format, args...)}
}
