// Package sealed keeps small records in bbolt files that know when they are
// damaged.
//
// bbolt trusts its pages: a flipped bit in a file is read as other content, as
// a missing key, or ends the process in a goroutine of its own, and a file
// that was cut short under its memory map raises a signal. A DB adds what is
// missing:
//
//   - Each value carries a checksum over its bucket, its key and itself. It is
//     checked whenever the value is read.
//   - The number of all values and the sum of their checksums (the seal) are
//     written with each transaction, so that what vanished, or came back in an
//     older state, is noticed as well.
//   - Open reads the whole file through a reader of its own (pages.go), which
//     believes nothing and maps nothing, before bbolt sees it. Both of bbolt's
//     meta pages have to be sound: with one alone the newest transaction may be
//     missing.
//   - What bbolt does in the caller's goroutine is guarded: its panics, and
//     faults of the memory map, become a DamagedError.
//
// What cannot be noticed is a whole file in an older state: a copy that was put
// back, or a disk that says that it wrote what it did not.
//
// Salvage finds single records in a damaged file, without its structure.
//
// syncer keeps its records so, raftstore its log. A DB is safe for concurrent
// use as bbolt is: many readers, one writer.
package sealed
