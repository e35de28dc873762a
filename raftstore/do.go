package raftstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// MaxEntry bounds one command, in bytes: entries of the log stay small, so
// that a large one never holds up the small ones behind it.
const MaxEntry = 64 << 10

// Do commits a command, from any node, and returns its outcome. It carries the
// command to the leader and tries again through changes of leader until ctx
// ends; then the error says why, and is cluster.ErrNoQuorum where no majority
// answered. It is cluster.ErrNotCommitted where the command has not come into
// any log; after another error it may have been committed, or may yet be. All
// commands may be repeated: the machine sees to that. cmd is written in the
// active format, whatever it says.
func (s *Store) Do(ctx context.Context, cmd *pb.Command) (*pb.Outcome, error) {
	out, _, err := s.do(ctx, cmd)
	return out, err
}

// do is Do, with the index of the log entry.
func (s *Store) do(ctx context.Context, cmd *pb.Command) (*pb.Outcome, uint64, error) {
	const shortest, longest = 10 * time.Millisecond, 200 * time.Millisecond
	cmd.Format = s.machine.Format()
	nowhere := true // no attempt can have left the command in a log
	end := func(err error) error {
		if nowhere {
			return cluster.NotCommitted(err)
		}
		return cluster.OutcomeUnknown(err)
	}
	for pause := shortest; ; pause = min(2*pause, longest) {
		changed := s.leaders.wait()
		out, index, err := s.attempt(ctx, changed, cmd)
		if err == nil {
			return out, index, nil
		}
		nowhere = nowhere && leftNothing(err)
		var large *TooLargeError
		if errors.Is(err, ErrClosed) || errors.As(err, &large) {
			return nil, 0, end(err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-changed:
		case <-timer.C:
		case <-s.closing:
			err = ErrClosed
		case <-ctx.Done():
		}
		timer.Stop()
		switch {
		case errors.Is(err, ErrClosed):
			return nil, 0, end(err)
		case ctx.Err() != nil:
			return nil, 0, end(s.givenUp(ctx.Err(), err))
		}
	}
}

// leftNothing tells whether a failed attempt surely left nothing in any log.
// A node that does not lead refuses before it writes.
func leftNothing(err error) bool {
	var notLeader *cluster.NotLeaderError
	return errors.Is(err, cluster.ErrNotCommitted) || errors.As(err, &notLeader)
}

// givenUp says why a command was not committed when its time was up.
func (s *Store) givenUp(ended, last error) error {
	if !s.Quorum() || errors.Is(last, cluster.ErrNoQuorum) {
		return fmt.Errorf("%w (%w)", cluster.ErrNoQuorum, ended)
	}
	return fmt.Errorf("not committed in time: %w (last attempt: %w)", ended, last)
}

// attempt tries once, with whoever leads now. It ends when the leader changes.
func (s *Store) attempt(ctx context.Context, changed <-chan struct{}, cmd *pb.Command) (*pb.Outcome, uint64, error) {
	if s.raft.State() == raft.Leader {
		return s.ApplyLocal(ctx, cmd)
	}
	leader, known := s.Leader()
	if !known || leader == s.cfg.ID || s.cfg.Forward == nil {
		return nil, 0, s.notLeader()
	}
	if size := proto.Size(cmd); size > MaxEntry {
		return nil, 0, cluster.NotCommitted(&TooLargeError{Size: size, Limit: MaxEntry})
	}
	ctx, cancel := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		s.cancelWhenLost(ctx, cancel, changed, leader)
	}()
	defer func() { cancel(); <-watching }()
	return s.cfg.Forward.Forward(ctx, leader, cmd)
}

// cancelWhenLost cancels once leader leads no more: its answer may never come.
func (s *Store) cancelWhenLost(ctx context.Context, cancel context.CancelFunc, changed <-chan struct{}, leader cluster.NodeID) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.closing:
			cancel()
			return
		case <-changed:
		}
		changed = s.leaders.wait()
		if now, _ := s.Leader(); now != leader {
			cancel()
			return
		}
	}
}

// ApplyLocal commits a command on this node if it leads, else it returns a
// *cluster.NotLeaderError. It is what a leader serves to the others; it returns
// the outcome and the index of the log entry once the machine has applied it.
// After an error that is neither this nor cluster.ErrNotCommitted the command
// may be committed.
func (s *Store) ApplyLocal(ctx context.Context, cmd *pb.Command) (*pb.Outcome, uint64, error) {
	entry, err := proto.Marshal(cmd)
	if err != nil {
		return nil, 0, cluster.NotCommitted(fmt.Errorf("write a command: %w", err))
	}
	if len(entry) > MaxEntry {
		return nil, 0, cluster.NotCommitted(&TooLargeError{Size: len(entry), Limit: MaxEntry})
	}
	if s.raft.State() != raft.Leader || s.Silent() {
		return nil, 0, s.notLeader()
	}
	if err := s.room(); err != nil {
		return nil, 0, cluster.NotCommitted(err)
	}
	answer, err := s.enter(ctx, entry)
	if err != nil {
		return nil, 0, cluster.NotCommitted(err)
	}
	select {
	case a := <-answer:
		return a.outcome, a.index, a.err
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	case <-s.closing:
		return nil, 0, ErrClosed
	}
}

type answer struct {
	outcome *pb.Outcome
	index   uint64
	err     error
}

// enter hands an entry to Raft. Raft's futures know no context, so each is
// waited for on its own; slots bounds how many there are.
func (s *Store) enter(ctx context.Context, entry []byte) (<-chan answer, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closing:
		return nil, ErrClosed
	}
	s.entering.RLock()
	defer s.entering.RUnlock()
	if s.isClosing() {
		<-s.slots
		return nil, ErrClosed
	}
	s.inside.Add(1)
	s.pending.Add(1)
	to := make(chan answer, 1)
	go func() {
		defer s.inside.Done()
		defer func() { <-s.slots }()
		a := s.apply(entry)
		to <- a
		if s.pending.Add(-1) == 0 && a.err == nil {
			s.spread()
		}
	}()
	return to, nil
}

func (s *Store) apply(entry []byte) answer {
	future := s.raft.Apply(entry, 0)
	if err := future.Error(); err != nil {
		return answer{err: s.fromRaft(err)}
	}
	out, ok := future.Response().(*pb.Outcome)
	if !ok {
		return answer{err: fmt.Errorf("the machine answered with a %T", future.Response())}
	}
	return answer{outcome: out, index: future.Index()}
}

// spread makes the followers learn at once that the last entry is committed:
// they hear of it with the next one, and this is that. Nobody waits for it.
func (s *Store) spread() {
	if len(s.raft.GetConfiguration().Configuration().Servers) < 2 {
		return
	}
	empty := noop()
	empty.Format = s.machine.Format()
	entry, err := proto.Marshal(empty)
	if err == nil {
		s.raft.Apply(entry, s.cfg.Tuning.Commit)
	}
}

func noop() *pb.Command {
	return &pb.Command{Format: Format, Do: &pb.Command_Noop{Noop: &pb.Noop{}}}
}

func (s *Store) notLeader() error {
	leader, _ := s.Leader()
	if leader == s.cfg.ID {
		leader = "" // on the way in or out
	}
	return &cluster.NotLeaderError{Leader: leader}
}

// fromRaft translates Raft's errors into ours.
func (s *Store) fromRaft(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrClosed
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return s.notLeader()
	case errors.Is(err, raft.ErrLeadershipLost):
		return fmt.Errorf("the leader was lost before it answered: %w", err)
	}
	return err
}
