package syncer

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatesync/gatesync/manifest"
)

const (
	// spreadTimeout and slowestLink bound how long content may take to a
	// majority; afterwards the loop tries again.
	spreadTimeout  = 20 * time.Second
	slowestLink    = 256 << 10 // bytes a second
	proposeTimeout = 15 * time.Second
)

// propose makes the content of a batch durable on a majority, proposes it and
// posts the answer. One goroutine for each batch; large ones have tokens of
// their own, so that small ones need not wait for them.
func (s *Syncer) propose(ctx context.Context, e Propose) {
	var refs []manifest.BlobRef
	var size int64
	seen := map[manifest.Digest]bool{}
	for _, c := range e.Changes {
		if c.New.HasContent() && !seen[c.New.Digest] {
			seen[c.New.Digest] = true
			refs = append(refs, c.New.Blob())
			size += c.New.Size
		}
	}
	tokens := s.proposals
	if size >= bigFile {
		tokens = s.bigOffers
	}
	select {
	case <-ctx.Done():
		return
	case tokens <- struct{}{}:
	}
	defer func() { <-tokens }()
	if !s.begin(ctx, e.marker, e.Begun) {
		return
	}
	res, err := s.offer(ctx, e, refs, size)
	if ctx.Err() == nil {
		s.inbox.post(Proposed{Batch: e.Batch, Result: res, Err: err})
	}
}

func (s *Syncer) offer(ctx context.Context, e Propose, refs []manifest.BlobRef, size int64) (manifest.Result, error) {
	set := manifest.Changeset{
		Tree: s.cfg.Tree, Mode: manifest.PerPath,
		Origin: e.Origin,
		Time:   s.cfg.Now().UnixNano(), Changes: e.Changes,
	}
	if len(refs) > 0 {
		view, _ := s.cfg.Log.View(s.cfg.Tree)
		receipts, err := s.spread(ctx, refs, view.Replaced(e.Changes), size)
		if err != nil {
			return manifest.Result{}, err
		}
		set.Receipts = receipts
	}
	// The root may have been emptied since the look: then nothing that was
	// seen in it is worth proposing.
	g, done, err := s.root.borrow()
	if err != nil {
		return manifest.Result{}, err
	}
	err = s.root.verify(g)
	done()
	if err != nil {
		return manifest.Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	res, err := s.cfg.Log.Propose(ctx, set)
	if err != nil {
		return res, fmt.Errorf("propose: %w", err)
	}
	return res, nil
}

// spread flushes the content here while it travels to the others.
func (s *Syncer) spread(ctx context.Context, refs []manifest.BlobRef, bases manifest.Bases, size int64) (receipts []manifest.Receipt, err error) {
	ctx, cancel := context.WithTimeout(ctx, spreadTimeout+time.Duration(size/slowestLink)*time.Second)
	defer cancel()
	var both errgroup.Group
	both.Go(func() error {
		if err := s.cfg.Blobs.Flush(); err != nil {
			return fmt.Errorf("flush the blob store: %w", err)
		}
		return nil
	})
	both.Go(func() (err error) {
		if receipts, err = s.cfg.Carrier.Spread(ctx, refs, bases); err != nil {
			return fmt.Errorf("spread content: %w", err)
		}
		return nil
	})
	return receipts, both.Wait()
}
