// Package syncer keeps one tree equal to its committed manifest, and proposes
// what is edited in it: the one loop of docs/design.md.
//
// The loop itself is pure. Loop.Handle takes an Event and returns Effects:
// data that says what is to be done. An executor (Syncer) does it with the
// real disk, blob store, carrier and log, and answers with further events;
// the simulator does it with models on virtual time. Loop owns its state and
// is driven by a single goroutine; everything slow happens in executors.
//
// The loop is loop.go with its parts loop_*.go, over the works of work.go; what
// goes in and comes out stands in inbox.go and effect.go. The executor is one
// file per verb: hint (watch.go, scan.go), look.go, settle.go, propose.go,
// fetch.go, materialize.go (stage.go, swap.go, remove.go), record.go, verify.go,
// differences.go. root.go keeps the directory, placer.go finds out who else has
// it; target.go is the executor alone, for pushes.
package syncer
