//go:build gatesync_nextformat

package raftstore

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// This is the next version of gatesync, as far as its tests need one: it
// understands one format more, in which the machine does something visible. A
// real next version does the same: it raises Newest, gives what is new a name
// with the number of its format, and asks has wherever it matters. These lines
// are then part of format.go.

// Newest is the newest format that this build understands.
const Newest = 3

// So that snapshots travel between the versions within a short test.
const (
	snapshotInterval  = time.Second
	snapshotThreshold = 64
	trailingLogs      = 16
)

// messagesNameFormat: commits say under which format they came.
const messagesNameFormat feature = 3

func (s *state) worded(c manifest.Commit) manifest.Commit {
	if s.has(messagesNameFormat) {
		c.Message += "[format 3]"
	}
	return c
}
