// Package records is a stream of length-prefixed protobuf messages that knows
// when it is damaged: its last record says how many there were and what their
// digest is. Snapshots of the log and backups are such streams; each has
// message types of its own, and its own bound on one of them.
//
// Nothing in a stream is trusted before its last record was checked: a buffer
// grows with what is there, not with what a length declares.
package records
