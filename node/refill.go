package node

import (
	"context"
	"errors"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

const (
	refillLook  = 200 * time.Millisecond // until the log is read
	refillRetry = 10 * time.Second
	refillBatch = 256 // blobs asked for at once
)

// refill brings the content of all present paths into a blob store that was
// wiped: what it had given receipts for is on a disk less. Once it is complete
// node.json names it.
func (n *Node) refill(ctx context.Context) error {
	if n.file.Store == n.blobs.ID() {
		return nil
	}
	if n.file.Store != "" {
		n.slog.Warn("the blob store is a new one: its content is fetched again; what conflicts had kept aside here is gone", "was", n.file.Store, "is", n.blobs.ID())
	}
	pause := refillLook
	for {
		if n.caughtUp() && n.trees.complete() {
			lacks, err := n.fetchMissing(ctx)
			if err == nil && lacks == 0 {
				return n.storeComplete()
			}
			pause = refillRetry
			n.slog.Debug("some content is not here yet", "blobs", lacks, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// fetchMissing asks the others for what present paths hold and this node lacks,
// and tells how much it still does.
func (n *Node) fetchMissing(ctx context.Context) (lacks int, err error) {
	var want []manifest.BlobRef
	asked := map[manifest.Digest]bool{}
	for _, t := range n.log.Trees() {
		view, _ := n.log.View(t.Name)
		view.Manifest.All(func(_ manifest.Path, node manifest.Node) bool {
			if e := node.Entry; e.HasContent() && !asked[e.Digest] && !n.blobs.Has(e.Digest) {
				asked[e.Digest] = true
				want = append(want, e.Blob())
			}
			return true
		})
	}
	for len(want) > 0 && ctx.Err() == nil {
		batch := want[:min(len(want), refillBatch)]
		want = want[len(batch):]
		err = errors.Join(err, n.carrier.Fetch(ctx, batch, func(manifest.Digest, error) {}))
		for _, ref := range batch {
			if !n.blobs.Has(ref.Digest) {
				lacks++
			}
		}
	}
	return lacks + len(want), errors.Join(err, n.blobs.Flush())
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
