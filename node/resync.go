package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// ResyncOptions say what a resync without a daemon does.
type ResyncOptions struct {
	DryRun  bool
	Trees   []string
	From    string // host:port of a member to begin with
	Version string
	Log     *slog.Logger
}

// quorumWithin is how long a resync goes without a quorum before it gives up.
const quorumWithin = 15 * time.Second

// Resync brings the trees and the cluster together without a daemon. It is the
// same node and the same loop, run until all is settled and applied; the node
// says that it is only visiting, so that nobody makes it a voter.
func Resync(ctx context.Context, cfg config.Config, o ResyncOptions, take func(*pb.ResyncEvent) error) error {
	if o.From != "" {
		cfg.Seeds = append([]string{o.From}, cfg.Seeds...)
	}
	n, err := Open(cfg, Options{Version: o.Version, Log: o.Log, Visit: true, DryRun: o.DryRun})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ran := make(chan error, 1)
	go func() {
		err := n.Run(ctx)
		if err != nil {
			cancel(err)
		}
		ran <- err
	}()
	err = n.resync(ctx, o, take)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // the node failed; what waited for it only saw its end
	}
	cancel(nil)
	if rerr := <-ran; err == nil {
		err = rerr
	}
	return err
}

func (n *Node) resync(ctx context.Context, o ResyncOptions, take func(*pb.ResyncEvent) error) error {
	if err := n.findOthers(ctx); err != nil {
		return err
	}
	trees, err := n.trees.some(o.Trees)
	if err != nil {
		return err
	}
	r := resyncing{log: n.log, trees: trees, moved: n.moved, send: take}
	if o.DryRun {
		return r.dryRun(ctx)
	}
	return r.run(ctx, n.trees)
}

// findOthers waits until the log is read and every tree is open.
func (n *Node) findOthers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, quorumWithin)
	defer cancel()
	ch, stop := n.log.Watch()
	defer stop()
	for !n.log.CaughtUp() || !n.log.Quorum() {
		select {
		case <-ch:
		case <-time.After(200 * time.Millisecond): // being caught up is no change of the log
		case <-ctx.Done():
			return fmt.Errorf("no leader was found within %s; --from HOST:PORT names a member to begin with: %w", quorumWithin, cluster.ErrNoQuorum)
		}
	}
	if err := n.log.Barrier(ctx); err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	select {
	case <-n.trees.whole:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the cluster does not know all of this node's trees: %w", ctx.Err())
	}
}
