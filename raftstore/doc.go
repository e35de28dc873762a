// Package raftstore is the order of writes: what every node agrees has
// happened, and in which order.
//
// It has two halves. Machine is a pure, deterministic state machine: commands
// in, outcomes out, no clock, disk, network or randomness. It holds the
// committed manifest of each tree, the history, the members and the join
// tokens. Everything it decides (a conflict, too few receipts, an expired
// token) is a value in an Outcome; it never fails and never panics, whatever
// bytes the log holds. The simulator drives Machine directly.
//
// Store puts Machine under hashicorp/raft: a log on disk, snapshots, elections
// and membership. Propose and Do work on every node: they carry the command to
// the leader (through the Forwarder that package node wires) and try again
// under the same id through changes of leader, so that a command is applied
// once however often it was sent. An answer means that the command is
// committed; the local machine of a follower learns that a moment later
// (Watch tells when, Barrier waits for it).
//
// What is promised:
//   - two machines that were fed the same commands are equal, byte for byte in
//     their snapshots;
//   - no entry ever stands without its parent directory;
//   - a changeset with content is accepted only with receipts from a majority
//     of the voters at its place in the log;
//   - a retry under the same id is a no-op with the same outcome;
//   - an atomic changeset is applied whole or not at all;
//   - what the machine does is decided by the active format in its state, never
//     by the version of the program (format.go); a machine that does not know
//     the active format stops;
//   - the step that NextStep proposes leaves the living voters a majority, and of
//     the cluster's own accord never lowers how many more may fail.
//
// A follower takes no part in Raft. Its Store is fed committed entries, or a
// snapshot, out of another node's log: Feed there, Take and Spool here.
//
// A log that no daemon uses is read by Replay, and begun anew for the cluster's
// next incarnation by Rebegin: recover and restore-cluster are made of these.
//
// What is read from the disk is what was written, or the node ends with a
// DamagedError that says what to do: logdisk.go keeps the log in a sealed file,
// snapshots.go covers what Raft's snapshots leave open, damage.go says what
// follows.
//
// Package node opens the Store and serves ApplyLocal to its peers; package
// syncer reads views and proposes through interfaces of its own. All methods
// of Store and Machine are safe for concurrent use.
package raftstore
