// Package syncer keeps one tree equal to its committed manifest, and proposes
// what is edited in it: the one loop of docs/design.md.
//
// The loop itself is pure. Loop.Handle takes an Event and returns Effects:
// data that says what is to be done. An executor (Syncer) does it with the
// real disk, blob store, carrier and log, and answers with further events;
// the simulator does it with models on virtual time. Loop owns its state and
// is driven by a single goroutine; everything slow happens in executors.
//
// One file per verb: hint (watch.go, scan.go), look.go, propose.go, fetch.go,
// materialize.go, record.go.
package syncer
