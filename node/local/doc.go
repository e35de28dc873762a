// Package local is the way from a command to the daemon of the same machine: a
// Unix socket in the data directory, which only the daemon's user may open, and
// gRPC on it. Listen is the daemon's end, Dial the command's; Propose and Read
// carry what is too much for one message.
//
// A daemon that is not there (NotRunningError) and one that is and does not
// answer (HungError), at once or in the middle of a call, are told apart, each
// with what to do next.
package local
