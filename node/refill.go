package node

import (
	"context"
	"time"
)

// refillLook is how often it is asked whether the log is read.
const refillLook = 200 * time.Millisecond

// refill waits until the keeper has brought all content into a blob store that
// was wiped: what it had given receipts for is on a disk less. Once it is
// complete node.json names it.
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
		return nil
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
