package node

import (
	"context"
	"time"
)

// refillLook is how often a node that is still reading the log looks again.
const refillLook = 200 * time.Millisecond

// refill waits until a blob store that was wiped holds all content again (the
// keeper sees to that); then node.json names it.
func (n *Node) refill(ctx context.Context) error {
	if n.file.Store == n.blobs.ID() {
		return nil
	}
	if n.file.Store != "" {
		n.slog.Warn("the blob store is a new one: its content is fetched again; what conflicts had kept aside here is gone", "was", n.file.Store, "is", n.blobs.ID())
	}
	for !n.caughtUp() || !n.trees.complete() {
		if wait(ctx, refillLook) != nil {
			return nil
		}
	}
	if n.keeper.waitContent(ctx, n.log.Revision()) != nil {
		return nil // stopping
	}
	return n.storeComplete()
}

func (n *Node) storeComplete() error {
	n.fileMu.Lock()
	defer n.fileMu.Unlock()
	if n.file.YieldTo != 0 {
		return nil // it is about to end
	}
	n.file.Store = n.blobs.ID()
	return n.dir.writeNode(n.file)
}
