package sim

import (
	"flag"
	"fmt"
	"testing"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "replay this one seed; with -v, with a trace")
	seedsFlag = flag.Uint64("seeds", 250, "how many seeds to run")
	fromFlag  = flag.Uint64("from", 1, "the first of them")
	mostFlag  = flag.Int("most", 1, "how many failing seeds to wait for")
)

// TestPromise_Converge_SimulatedMount is the same with two or more of the nodes
// on one mount, where stewards fall silent, and wake up in the middle of a step.
func TestPromise_Converge_SimulatedMount(t *testing.T) {
	simulate(t, "SimulatedMount", MountedOptions)
}

// TestPromise_Converge_Simulated runs many seeded clusters on virtual time. It
// checks Order, NoLoss, NoTornFile, NoSurpriseDelete and NoEcho on the way.
func TestPromise_Converge_Simulated(t *testing.T) { simulate(t, "Simulated$", DefaultOptions) }

func simulate(t *testing.T, name string, options func(seed uint64) Options) {
	if *seedFlag != 0 {
		opt := options(*seedFlag)
		if testing.Verbose() {
			opt.Trace = func(s string) { fmt.Println(s) }
		}
		if err := Run(opt); err != nil {
			t.Fatalf("%v\nreplay it with: %s", err, replay(name, *seedFlag))
		}
		return
	}
	failed := 0
	for seed := *fromFlag; seed < *fromFlag+*seedsFlag && failed < *mostFlag; seed++ {
		if err := Run(options(seed)); err != nil {
			failed++
			t.Errorf("seed %d: %v\nreplay it with: %s", seed, err, replay(name, seed))
		}
	}
}

func replay(name string, seed uint64) string {
	return fmt.Sprintf("go test -tags hashicorpmetrics ./integration/sim -run '%s' -seed %d -v", name, seed)
}
