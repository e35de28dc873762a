// Package fallback says how bytes travel between the blob stores of a cluster.
//
// A Carrier does two things: Spread makes blobs durable on other nodes and
// returns their receipts; Fetch brings blobs here from whichever node has
// them. Push, the carrier of this package, does both over gRPC streams between
// any two members; a shared mount is another way, put before it.
// The syncer is who calls Spread (before it proposes) and Fetch (before it
// materializes); package node wires a Push to the blob store and to the
// connections of package transport, and registers its receiving end.
//
// What Push promises:
//
//   - A receipt is given only after the receiver's store has flushed, and only
//     for content whose size and digest the receiver has checked itself.
//   - Many blobs travel in one stream and many small blobs in one message:
//     there is no round trip per file. A batch of at most 64 KiB goes eagerly,
//     in one message, and costs one round trip and one flush.
//   - What a peer already holds is not sent to it, larger batches are offered
//     first. What a peer is pushing here right now is not fetched as well, and
//     what is being fetched is not pushed as well: each is waited for while it
//     makes progress.
//   - A peer that refuses, stalls or breaks the protocol costs the caller an
//     error for that peer and nothing else.
//   - A fetch asks a few peers at a time, passes over one that is quiet for some
//     seconds, and comes back to it if nobody else has the blob.
//   - Memory is bounded by constants (limits.go), whatever a peer declares:
//     every size is checked before it is believed.
//
// Share is a directory on a common mount, and Chain puts it before the push:
// the offer of a batch names a parcel there (parcel.go), and who cannot read it
// answers with what it needs, like to any offer. share.go keeps the directory
// open and knows who sees it too, shareopen.go makes sure that it is one,
// sharecollect.go removes what is left over. No call into it is trusted to come back.
//
// Everything here is bytes by digest: no path, no tree and no policy.
//
// Streams: each peer has up to three lanes, opened when first needed and kept:
// eager batches, batches of small blobs, and large blobs, so that a large blob
// delays no small one. lane.go is the sending end of a lane, receive.go the
// receiving end, receiveoffer.go what it needs of an offer; assemble.go puts
// pieces together again for both Push and Fetch, cut.go takes blobs apart for both.
package fallback
