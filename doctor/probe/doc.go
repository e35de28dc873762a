// Package probe gathers facts about this machine for package doctor: what the
// kernel says of mounts and limits, what the data directory and the trees'
// directories look like, and what happens when things are tried out there.
//
// What is tried lies in a directory of its own under .gatesync in the tree's
// root, and is removed again. Each call into a filesystem has a deadline: one
// that hangs is left behind in its goroutine (nothing in a process can end it
// but the filesystem or the process's end), and is itself the fact.
package probe
