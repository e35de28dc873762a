// Package sim runs a whole cluster of gatesync's pure parts in one process on
// virtual time: syncer.Loop on every node, manifest's decisions inside it, and
// a raftstore.Machine per node behind a modelled log. Disk, blob store,
// carrier and network are models with seeded delays, losses, crashes and
// power cuts; gateways write at random, in place and half-way.
//
// A run is a function of its seed. Run returns what went wrong, if anything;
// the test prints the command that replays it.
package sim
