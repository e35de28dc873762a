//go:build gatesync_nextformat

package raftstore

import "github.com/gatesync/gatesync/manifest"

// This is the next version of gatesync, as far as its tests need one: it
// understands one format more, in which the machine does something visible.

// Newest is the newest format that this build understands.
const Newest = Format + 1

// messagesNameFormat: commits say under which format they came.
const messagesNameFormat feature = 2

func (s *state) worded(c manifest.Commit) manifest.Commit {
	if s.has(messagesNameFormat) {
		c.Message += "[format 2]"
	}
	return c
}
