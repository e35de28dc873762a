// Package delta makes content small on its way to somebody who holds something
// like it: signature, delta and patch. It is pure: bytes in, bytes out.
//
// # Three ways
//
//   - Against and Restore: both ends hold the old version. The new one travels
//     as zstd with the old one as raw dictionary. For versions of at most
//     DictLimit bytes: a dictionary reaches no further back.
//   - Sign, Encode and Patch: only the receiver holds the old version, or it is
//     large. It is cut where its own content says so (FastCDC), the receiver
//     tells short sums of the pieces, and the sender refers to those that
//     stand in the new version too. What is new travels as zstd; of a small
//     file with what is old as its dictionary, as deflate does in `rsync -z`.
//   - Pack and Unpack: nobody holds anything: zstd.
//
// # What it promises
//
//   - Patch(old, Encode(Sign(old), new)) is new, but for two pieces with the
//     same 48 bits of sums: the caller compares the digest of the whole, and
//     sends the whole where it differs.
//   - Whatever the bytes say, no more is allocated or written than the caller
//     allows: every decoder is told the size of its result and refuses more
//     (ErrMalformed), before it allocates.
//
// A Codec keeps encoders and decoders for reuse (making one costs up to 17 ms)
// and is safe for concurrent use. Package fallback/target is who calls it.
package delta
