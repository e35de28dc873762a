// Package doctor says what is wrong with a node's surroundings, and what to do
// about it: its data directory, its limits, the way to the other members, the
// directories of its trees and the mounts that they lie on.
//
// Facts are values that somebody gathers (package probe for this machine,
// package node for the cluster). Each check is a pure function from facts to
// findings, so that every judgement is tested with a table. A fact that could
// not be gathered says why; that is then the finding.
package doctor
