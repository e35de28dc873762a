// Package manifest says what should stand at each path of a tree.
//
// It holds the vocabulary that every other package speaks (Digest, Path,
// Entry, Manifest, Change, Changeset, Revision) and the decisions that are
// taken over those values: Reconcile, the guards and the ignore rules. All of
// it is pure: no disk, no clock, no network, no globals. Values are immutable
// once handed out, so they may be read from any goroutine.
//
// Everybody imports manifest; manifest imports nobody of this module.
package manifest
