// Package linear checks that concurrent proposals and reads, with crashes and
// partitions among them, are linearizable: that there is one order of them all,
// in keeping with what ended before what began, in which each got the answer
// that a single copy of the tree would have given.
//
// Work drives clients (Run) and records what they saw as a History. Check holds
// it against the log that the nodes agree on at the end, and against a model of
// the tree (model.go) with porcupine. The model is a register with versions for
// each path; paths of one group make one state, so that an atomic changeset
// over some of them is seen whole or not at all.
//
// The tests of this package run several raftstore.Store in one process over a
// network that cuts, swallows, delays and repeats. Package integration runs the
// same work against real daemons through their local API.
package linear
