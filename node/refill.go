package node

import "context"

// refill waits until a blob store that was wiped holds all content again (the
// keeper sees to that); then node.json names it.
func (n *Node) refill(ctx context.Context) error {
	if n.file.Store == n.blobs.ID() {
		return nil
	}
	if n.file.Store != "" {
		n.slog.Warn("the blob store is a new one: its content is fetched again; what conflicts had kept aside here is gone", "was", n.file.Store, "is", n.blobs.ID())
	}
	if n.current(ctx) != nil || n.keeper.waitContent(ctx, n.log.Revision()) != nil {
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
