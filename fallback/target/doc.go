// Package target pushes trees to a target: a receiver that is no member of the
// cluster. It is the rsync-style way for where Raft membership, a shared mount
// or even a daemon is not possible.
//
// A session has two ends over any stream of bytes (TLS to `receive --listen`,
// ssh to `receive --stdio`): Push reads a Source (a folder, or a cluster's
// committed trees) and Receiver.Serve brings its trees to it. The receiver
// says what it has, the source what differs, the receiver what it needs of
// that, and content follows in one stream, without a round trip per file. How
// long a target was away does not matter: it is one comparison, no replay.
//
// What the receiver promises:
//
//   - A reader of its tree sees the old file or the new one, whole: everything
//     is staged, verified by digest, flushed and swapped in by the syncer's own
//     executor (syncer.Target), in the order of the tree's preset; deletions
//     come last. Nothing is touched before all content is there.
//   - What no push has brought is never lost: an edit that is displaced is kept
//     aside (`gatesync conflicts`), a file that was made there is held.
//   - An empty or half source empties nothing: the mass-deletion guard judges
//     at the receiver (Policy); a root that has lost its marker is not filled.
//   - Ignored paths are neither written nor deleted.
//   - Of several pushers one works, the others are refused (a lock in the root);
//     of one cluster's pushers the newest epoch (state.go).
//   - What arrived before a cut is not sent again: small content lies in the
//     blob store, what came of a large one is an old version for its delta.
//   - Memory is bounded; whatever is declared is checked before it is believed.
//
// What is decided is a pure function (plan.go). Files: link.go is the stream,
// push.go and pushcontent.go the source's end, receiver.go, receivetree.go and
// receivecontent.go the target's; listen.go and ssh.go open streams.
//
// A session takes a Source, not a folder, and knows epochs, so that a member
// of a cluster can drive it.
package target
