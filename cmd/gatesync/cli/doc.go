// Package cli is the gatesync program as a value: one file per command, and
// nothing in it but flags, words for people and JSON for programs.
//
// Program.Run takes arguments and returns an exit code, so that tests boot
// what users boot. Errors travel up unchanged and become exit codes in exactly
// one place, exit.go. Commands that look at or steer a running node speak to
// its daemon over the socket in the data directory (local.go); init, join, run
// and a resync without a daemon use package node directly.
//
// Standard output carries the answer, standard error everything else
// (progress, warnings, what to do next), so that every command can be piped.
package cli
