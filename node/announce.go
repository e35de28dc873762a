package node

import (
	"context"
	"errors"
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

const (
	// announceRetry is the pause after a failure: mostly there is no quorum yet.
	announceRetry = time.Second
	// refusedMost is the longest pause after a refusal, up to which pauses double: each
	// attempt is an entry of the log.
	refusedMost = 5 * time.Minute
)

// run compares after each change of the log and proposes where it must. After a
// failure it pauses, whatever the log does: a refusal is itself a change of it.
func (a *announcer) run(ctx context.Context) error {
	ch, stop := a.watch.Watch()
	defer stop()
	refusals := 0
	for {
		news, again := ch, (<-chan time.Time)(nil)
		m, ok := a.differs()
		var err error
		if ok {
			err = a.announce(ctx, m)
		}
		var refused *raftstore.OutcomeError
		switch {
		case err == nil:
			refusals = 0
		case errors.As(err, &refused):
			news, again = nil, time.After(min(refusedMost, announceRetry<<min(refusals, 20)))
			refusals++
		default:
			a.logger.Debug("cannot announce this node yet", "err", err)
			news, again = nil, time.After(announceRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-news:
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
