package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// announcer makes the log say what is true of this node: its name, its
// address, its blob store and which format it understands. One goroutine.
type announcer struct {
	self    cluster.Member // what is true
	members membership
	log     proposer
	watch   watcher
	logger  *slog.Logger
}

// announceRetry is the pause after a failure: mostly there is no quorum yet.
const announceRetry = time.Second

// run compares after each change of the log and proposes where it must.
func (a *announcer) run(ctx context.Context) error {
	ch, stop := a.watch.Watch()
	defer stop()
	for {
		var again <-chan time.Time
		if m, ok := a.differs(); ok {
			if err := a.announce(ctx, m); err != nil && ctx.Err() == nil {
				a.logger.Debug("cannot announce this node yet", "err", err)
				again = time.After(announceRetry)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ch:
		case <-again:
		}
	}
}

// differs tells what has to be announced; not while the log does not know this
// node (it may still be behind, or have removed it).
func (a *announcer) differs() (cluster.Member, bool) {
	for _, m := range a.members.Members() {
		if m.ID != a.self.ID {
			continue
		}
		want := a.self
		want.Joined, want.Wish = m.Joined, m.Wish
		if m.Name == want.Name && m.Address == want.Address && m.Store == want.Store && m.Witness == want.Witness &&
			max(m.Format, raftstore.Format) == want.Format {
			return want, false
		}
		want.Epoch = max(want.Epoch, m.Epoch)
		return want, true
	}
	return cluster.Member{}, false
}

func (a *announcer) announce(ctx context.Context, m cluster.Member) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := a.log.Do(ctx, command(&pb.Command{Do: &pb.Command_PutMember{PutMember: &pb.PutMember{Member: toMessage(m)}}}))
	if err != nil {
		return err
	}
	if err := raftstore.OutcomeErr(out); err != nil {
		a.logger.Warn("the cluster does not take what this node says of itself", "err", err)
		return err
	}
	a.logger.Info("announced", "name", m.Name, "address", m.Address)
	return nil
}
