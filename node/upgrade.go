package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// formatLog is what raising the log's format needs of it.
type formatLog interface {
	membership
	watcher
	Format() uint32
	ApplyLocal(ctx context.Context, cmd *pb.Command) (*pb.Outcome, uint64, error)
}

// upgrading raises the log's active format while this node leads, as soon as
// every member has announced that it understands the next one. One goroutine.
type upgrading struct {
	self cluster.NodeID
	log  formatLog
	slog *slog.Logger
}

func (u *upgrading) run(ctx context.Context) error {
	return asLeader(ctx, u.self, u.log, func(ctx context.Context) {
		if err := u.step(ctx); err != nil && ctx.Err() == nil {
			u.slog.Debug("cannot raise the log's format now", "err", err)
		}
	})
}

func (u *upgrading) step(ctx context.Context) error {
	active := u.log.Format()
	to, _ := raftstore.NextFormat(active, raftstore.Newest, u.log.Members())
	if to <= active {
		return nil
	}
	out, _, err := u.log.ApplyLocal(ctx, command(&pb.Command{Format: active, Do: &pb.Command_SetFormat{SetFormat: &pb.SetFormat{Format: to}}}))
	if err == nil {
		err = raftstore.OutcomeErr(out)
	}
	if err == nil {
		// The first command in the new format: at its start, an older program
		// goes by that one (raftstore.Peek).
		_, _, err = u.log.ApplyLocal(ctx, command(&pb.Command{Format: to, Do: &pb.Command_Noop{Noop: &pb.Noop{}}}))
	}
	if err == nil {
		u.slog.Info("every member understands a newer format of the log: it is used from now on; older versions cannot take part any more", "from", active, "to", to)
	}
	return err
}

// asLeader calls step when the log has changed, and once a second, while this
// node leads.
func asLeader(ctx context.Context, self cluster.NodeID, log interface {
	membership
	watcher
}, step func(context.Context)) error {
	ch, stop := log.Watch()
	defer stop()
	tick := time.NewTicker(steerEvery)
	defer tick.Stop()
	for {
		if leader, ok := log.Leader(); ok && leader == self {
			within, cancel := context.WithTimeout(ctx, steerWithin)
			step(within)
			cancel()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-ch:
		}
	}
}

// watchFormats ends the node when the cluster's log is of a format that this
// version does not understand: nothing that it would do could be right.
func (n *Node) watchFormats(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.outdated:
		return err
	case to := <-n.log.Outdated():
		return &raftstore.NewerError{What: "the cluster's log", Format: to}
	}
}

// stopOutdated takes the word of a member; watchFormats acts upon it.
func (n *Node) stopOutdated(err error) {
	select {
	case n.outdated <- err:
	default:
	}
}

// activeFormat is asked by the port, which opens before the log does; and the
// log has to be read again after a start.
func (n *Node) activeFormat() uint32 {
	if l := n.opened.Load(); l != nil {
		return max(n.began.Format, l.Format())
	}
	return n.began.Format
}
