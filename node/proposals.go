package node

import (
	"context"
	"strings"
	"sync"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// countedLog is the log as the syncers see it; it counts how their changes
// end, for the metrics. Safe for concurrent use.
type countedLog struct {
	syncer.Log

	mu     sync.Mutex
	counts map[string]uint64
}

// newCountedLog starts at zero for the results that always occur, so that
// their series exist.
func newCountedLog(log syncer.Log) *countedLog {
	return &countedLog{Log: log, counts: map[string]uint64{"committed": 0, "conflict": 0, "failed": 0}}
}

// Propose counts each change of a changeset.
func (c *countedLog) Propose(ctx context.Context, cs manifest.Changeset) (manifest.Result, error) {
	res, err := c.Log.Propose(ctx, cs)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.counts["failed"] += uint64(len(cs.Changes))
		return res, err
	}
	for _, r := range res.Refused {
		c.counts[strings.ReplaceAll(r.Reason.String(), " ", "_")]++
	}
	c.counts["committed"] += uint64(max(0, len(cs.Changes)-len(res.Refused)))
	return res, nil
}

// totals returns a copy of the counts.
func (c *countedLog) totals() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]uint64, len(c.counts))
	for k, v := range c.counts {
		out[k] = v
	}
	return out
}
