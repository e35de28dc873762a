//go:build !gatesync_nextformat

package raftstore

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// Newest is the newest format that this build understands.
const Newest = 2

// What Tuning says of snapshots where nobody says otherwise.
const (
	snapshotInterval  = 2 * time.Minute
	snapshotThreshold = 8192
	trailingLogs      = 4096
)

// worded is where a later format may change what a commit says. No format does
// yet; newest_next.go shows how one would.
func (s *state) worded(c manifest.Commit) manifest.Commit { return c }
