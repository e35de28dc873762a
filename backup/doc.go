// Package backup is the one file that a cluster can be made of again: the
// state of the log at a revision, the content of all its paths and of the
// retained history, and the cluster's identity with the key of its CA.
//
// The file is a stream of length-prefixed records (proto/gatesync/v1/backup.proto):
// a header with a format version, the machine's snapshot in runs, each blob in
// runs, and a trailer with the number and the digest of all records. So it can
// be written to a pipe; a file that was torn or changed anywhere is refused.
// Content that only the history names and the writing node lacks is listed in
// the trailer; content of a present path that is lacking fails the backup.
//
// Write makes one, Read takes one apart and believes nothing in it before it
// was checked. Package node calls both. Conflicts that were kept aside, held
// files and join tokens are not in it: the first two are a node's own, and
// tokens are void in the next life.
package backup
