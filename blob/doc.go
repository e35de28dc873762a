// Package blob keeps content by its digest, durable in batches.
//
// It is to a tree what git's object store is to a checkout: what is once in
// here stays retrievable, whatever a gateway does to its files.
//
// # What it promises
//
//   - A blob that Has answers for is whole. After a successful Flush, every
//     blob whose Put had returned before is on disk, and survives a power cut.
//     What was put and not flushed may be gone after a crash, never torn: Open
//     verifies whatever an unfinished flush can have left.
//   - Content is verified where it is read: a Reader that has delivered all of
//     a blob has checked its digest, and says ErrCorrupt instead of io.EOF
//     otherwise. A blob that was found corrupt is no longer answered for, so
//     that it is fetched and put again; Hurt tells that it is time to. Scrub
//     finds what nobody reads.
//   - A full disk refuses early (RoomError, below the reserve), loses nothing,
//     and needs no restart once there is space.
//   - No large blob is ever held in memory. The index costs about 100 bytes a
//     blob.
//
// # How it lies on disk
//
//	id                 the store's id: a wiped store is another store
//	packs/00000001     small blobs (up to SmallLimit), one record behind the other
//	loose/<digest>     large blobs, a file each; always whole and flushed
//	tmp/               unfinished, or put and not flushed: emptied at Open
//	partial/           what came of large blobs before their source was cut off
//	damaged/           files that Repair took out: nothing reads them
//
// Small blobs are appended to the newest pack, so that a batch of thousands
// costs one fdatasync. A full pack is flushed and then sealed; one without a
// seal (the newest, or one whose flush failed) is read through at Open, and a
// torn tail is cut off. There is no index on disk; Open walks the records'
// headers. Damage in the middle of a pack costs the records that it hit: the
// walk goes on at the next record that verifies.
//
// When a flush fails, what was unflushed is written anew elsewhere before the
// next one succeeds: the kernel calls pages clean that it could not write.
//
// # Who calls it
//
// syncer puts what it finds in a tree and reads what it materializes;
// fallback puts what peers send, serves what they ask for, and flushes before
// it gives a receipt. All methods are safe for concurrent use. A Store starts
// no goroutines. It takes no lock on its directory: the daemon's own lock
// stands for it.
package blob
