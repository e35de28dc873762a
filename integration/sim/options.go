package sim

import (
	"math/rand/v2"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// Options size a run.
type Options struct {
	Seed   uint64
	Nodes  int           // that found the cluster, all of them voters
	Paths  int           // how many names the gateways choose from
	Writes int           // gateway operations before peace
	Chaos  time.Duration // virtual time over which all of this is spread

	Crashes  int // of daemons, and some of them of machines
	Cuts     int // of links, in one direction or both
	Steps    int // of clocks, by up to a day
	Joins    int // of nodes with files of their own
	Removals int // of nodes, for good
	Shuffles int // of voters: one is demoted, and promoted again later
	Wipes    int // of a blob store
	Unmounts int // of roots, some of which come back empty
	Trims    int // of history
	Rulings  int // by operators, before the last ones
	Sweeps   int // of much of a tree at once: deletions, moves, changes of kind

	ReadOnly float64 // share of nodes whose trees take no edits, some of them not for ever

	Mounted int // founders that have one directory; 0: none

	Mishaps   float64              // chance of a crash at each place where it hurts
	Leaseless float64              // share of nodes where leases do not work
	Limit     manifest.DeleteLimit // of the guard

	Trace func(string) // nil: silent
}

// DefaultOptions is a run of moderate size: some milliseconds of real time.
// What it is made of varies with the seed, so that rare things meet both
// often and seldom.
func DefaultOptions(seed uint64) Options {
	rng := rand.New(rand.NewPCG(seed, 7))
	upTo := func(n int) int { return rng.IntN(n + 1) }
	o := Options{
		Seed: seed, Nodes: 3, Paths: 6 + upTo(10), Writes: 20 + upTo(50), Chaos: 30 * time.Second,
		Crashes: upTo(5), Cuts: upTo(4), Steps: upTo(2), Leaseless: 0.15,
		Limit: manifest.DeleteLimit{Count: 1 << 30, Percent: 100},
	}
	if rng.IntN(8) == 0 {
		o.Nodes = 5
	}
	if rng.IntN(2) == 0 {
		o.Mishaps = 0.01
	}
	if rng.IntN(2) == 0 { // membership changes
		o.Joins, o.Removals, o.Shuffles, o.Wipes = upTo(2), upTo(1), upTo(2), upTo(1)
	}
	if rng.IntN(3) == 0 { // people and mounts
		o.Unmounts, o.Rulings, o.Trims = upTo(2), upTo(4), upTo(3)
		o.Limit = manifest.DeleteLimit{Count: 4, Percent: 30}
	}
	if rng.IntN(3) == 0 {
		o.ReadOnly = 0.4
	}
	if o.Rulings == 0 && rng.IntN(2) == 0 { // who has been spoken to is no longer braked
		o.Sweeps, o.Unmounts = 1+upTo(3), upTo(1)
		o.Limit = manifest.DeleteLimit{Count: 2, Percent: 30}
	}
	return o
}

// MountedOptions is DefaultOptions with some of the nodes on one mount.
func MountedOptions(seed uint64) Options {
	o := DefaultOptions(seed)
	rng := rand.New(rand.NewPCG(seed, 11))
	o.Mounted = 2 + rng.IntN(o.Nodes-1)
	o.ReadOnly = 0 // refused
	o.Removals, o.Unmounts, o.Rulings, o.Trims, o.Steps, o.Sweeps = 0, 0, 0, 0, 0, 0
	o.Limit = manifest.DeleteLimit{Count: 1 << 30, Percent: 100}
	return o
}
