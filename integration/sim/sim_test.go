package sim

import (
	"flag"
	"fmt"
	"testing"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "replay this one seed, with a trace")
	seedsFlag = flag.Uint64("seeds", 300, "how many seeds to run")
)

// TestPromise_Converge_Simulated runs many seeded clusters on virtual time.
func TestPromise_Converge_Simulated(t *testing.T) {
	if *seedFlag != 0 {
		opt := DefaultOptions(*seedFlag)
		opt.Trace = func(s string) { t.Log(s) }
		if err := Run(opt); err != nil {
			t.Fatal(err)
		}
		return
	}
	for seed := uint64(1); seed <= *seedsFlag; seed++ {
		if err := Run(DefaultOptions(seed)); err != nil {
			t.Fatalf("seed %d: %v\nreplay it with: %s", seed, err, replay(seed))
		}
	}
}

func replay(seed uint64) string {
	return fmt.Sprintf("go test -tags hashicorpmetrics ./integration/sim -run Simulated -seed %d -v", seed)
}
