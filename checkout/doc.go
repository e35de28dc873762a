// Package checkout fills an empty directory with a tree: for a copy that a
// gateway is pointed to when the directory that it read is gone.
//
// Everything is staged inside of the directory (it may be a mount point, and
// its parent another user's), flushed once, and then moved into place; the
// content of each file is verified as it is written. Nothing is ever
// overwritten: a directory that holds anything is refused, and what appears in
// it meanwhile stops the move. A Dir is used by one goroutine.
package checkout
