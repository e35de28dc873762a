// Package sim runs a whole cluster of gatesync's pure parts in one process on
// virtual time: syncer.Loop on every node, manifest's decisions inside it, and
// a raftstore.Machine per node behind a modelled log. Everything else is a
// model, and all that happens to it is drawn from a seed.
//
// What is modelled, each in a file of its own: the network (network.go: drops,
// delays, duplicates, cuts in one direction), the log (log.go: leaders, lagging
// readers, snapshots through bytes), the way of a changeset (propose.go:
// receipts, retries under one id through several leaders), membership
// (members.go: joiners with files of their own, promotions, removals, stores
// that were wiped), a machine's disk (disk.go, power.go), its blob store
// (store.go), the executor (executor.go, look.go, persist.go, apply.go,
// quarantine.go), gateways (gateway.go, edit.go) and operators (operator.go).
//
// What is checked, and when: oracle.go at each commit, rules.go at each offer
// and each step, ledger.go and check.go at the end of a run.
//
// A run is a function of its seed. Run returns what went wrong, if anything;
// the test prints the command that replays it.
package sim
