package node

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// gcPercent trades a little time for memory: the daemon stands beside a
	// gateway that needs it.
	gcPercent = 50
	// memoryEvery is how often spare memory is looked for, and memorySpare how
	// much of it is worth a collection: what bulk work leaves behind.
	memoryEvery = 20 * time.Second
	memorySpare = 24 << 20
)

// giveBackMemory returns what bulk work left behind to the system, until ctx
// ends. Go does so by itself, but only with the next collections, which an idle
// daemon does not need for long.
func giveBackMemory(ctx context.Context) error {
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
	}
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		metrics.Read(samples)
		free, held, live := samples[0].Value.Uint64(), samples[1].Value.Uint64(), samples[2].Value.Uint64()
		if free+max(held, live)-live > max(memorySpare, live/2) {
			debug.FreeOSMemory()
		}
	}
}
