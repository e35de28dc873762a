package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

const (
	// upstreamQuiet is how long a parent may say nothing.
	upstreamQuiet = 3 * time.Second
	// deafFor is how long a parent may hear of no leader before this node
	// looks whether another one does.
	deafFor = 3 * time.Second
	// attachWithin bounds the first answer.
	attachWithin = 5 * time.Second
	// roleLook is how often a node looks whether it is a follower now.
	roleLook = time.Second
	// orphanSaid is after how long it is said that nobody feeds this node.
	orphanSaid = 5 * time.Second
)

// followingLog is what a follower needs of its log.
type followingLog interface {
	watcher
	Place() (raftstore.Place, error)
	Take(ctx context.Context, told raftstore.Told, prev, prevTerm uint64, entries []*raft.Log) error
	Spool(raft.SnapshotMeta) (*raftstore.Spool, error)
	AppliedIndex() uint64
	Unfed()
}

// following keeps this node fed while it is a follower: it dials a parent, takes
// what comes, and looks for another one when that dies, stalls, or does not hear
// from a leader any more. One goroutine runs; the rest may be asked by any.
type following struct {
	self       cluster.NodeID
	log        followingLog
	follows    func() bool
	remember   func() error // keeps on disk whether this node follows, once the log says so
	refused    func()       // a parent says that this node is no follower
	candidates func() []cluster.Member
	learn      func(...cluster.Member) // addresses that a redirect names
	dial       dialer
	slog       *slog.Logger

	// Run's alone: where to go, since when nobody feeds this node, and whether that
	// was said.
	parents parents
	orphan  time.Time
	told    bool

	mu     sync.Mutex
	parent cluster.NodeID
	path   []string // down to the parent
	heard  time.Time
	cast   bool // a parent that was asked says that this node is no member, and none has fed it since
}

// run works until ctx ends. A node that takes part in Raft only waits for the
// day on which it does not.
func (f *following) run(ctx context.Context) error {
	f.parents.self = f.self
	tick := time.NewTicker(roleLook)
	defer tick.Stop()
	ch, stop := f.log.Watch()
	defer stop()
	was := false
	for ctx.Err() == nil {
		if err := f.remember(); err != nil {
			f.slog.Warn("cannot keep whether this node is a follower; trying again", "err", err)
		}
		if !f.follows() {
			if was {
				f.log.Unfed()
				f.slog.Info("this node takes part in Raft now")
			}
			was = false
			select {
			case <-ctx.Done():
			case <-ch:
			case <-tick.C:
			}
			continue
		}
		if !was {
			f.orphan, f.told = time.Now(), false
		}
		was = true
		f.round(ctx)
	}
	return nil
}

// round is one attempt, from the choice of a parent to its end.
func (f *following) round(ctx context.Context) {
	members := f.candidates()
	f.parents.keep(members)
	id, pause := f.parents.next(time.Now(), members, rand.IntN)
	if id == "" {
		_ = wait(ctx, min(pause, roleLook))
		return
	}
	err := f.attach(ctx, id)
	was := f.lost(errors.Is(err, cluster.ErrNotMember))
	how, instead := endUnreachable, []cluster.NodeID(nil)
	var end *endedError
	if errors.As(err, &end) {
		how, instead = end.how, end.instead
		if how == endNoFollower {
			f.refused()
		}
	} else if was {
		how = endLost
	}
	f.parents.ended(time.Now(), id, how, instead, rand.IntN)
	if ctx.Err() != nil {
		return
	}
	switch {
	case was:
		f.orphan, f.told = time.Now(), false
		f.slog.Info("another node has to feed this follower", "parent", string(id), "why", err)
	case !f.told && time.Since(f.orphan) > orphanSaid:
		f.told = true
		f.slog.Warn("nobody feeds this follower: nothing new comes here until somebody does; it goes on looking", "tried", string(id), "why", err)
	default:
		f.slog.Debug("this follower is not fed there", "parent", string(id), "why", err)
	}
}

// endedError says why a parent feeds this node no more.
type endedError struct {
	how     ending
	why     string
	instead []cluster.NodeID
}

func (e *endedError) Error() string { return e.why }

// upstream is who feeds this node, with the path from Raft down to it.
func (f *following) upstream() (parent cluster.NodeID, path []string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.parent, slices.Clone(f.path), f.parent != "" && time.Since(f.heard) <= upstreamQuiet
}

// disowned tells whether a parent says that this node is no member, and none
// feeds it.
func (f *following) disowned() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cast
}

func (f *following) lost(cast bool) (was bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was = f.parent != ""
	f.cast = f.cast || cast
	f.parent = "" // the path stays: nobody below may feed this node
	return was
}

// call opens the stream to a possible parent and says how far the log goes.
func (f *following) call(ctx context.Context, id cluster.NodeID, probe bool) (grpc.BidiStreamingClient[pb.FollowRequest, pb.FollowResponse], error) {
	place, err := f.log.Place()
	if err != nil {
		return nil, fmt.Errorf("find this log's end: %w", err)
	}
	conn, err := f.dial.Dial(ctx, id)
	if err != nil {
		return nil, err
	}
	stream, err := pb.NewFeedClient(conn).Follow(ctx)
	if err != nil {
		return nil, err
	}
	return stream, stream.Send(&pb.FollowRequest{Place: &pb.FollowPlace{
		Applied: place.Applied, AppliedTerm: place.AppliedTerm, Last: place.Last, LastTerm: place.LastTerm, Probe: probe,
	}})
}

// attach is fed by one parent until that ends.
func (f *following) attach(ctx context.Context, id cluster.NodeID) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var receiving sync.WaitGroup
	defer receiving.Wait()
	defer cancel(nil)
	quiet := &endedError{how: endStalled, why: "it has not said anything for some seconds"}
	dog := time.AfterFunc(attachWithin, func() { cancel(quiet) })
	defer dog.Stop()
	stream, err := f.call(ctx, id, false)
	if err != nil {
		return err
	}
	messages := make(chan *pb.FollowResponse) // one at a time: who is slow to write is slow to read
	ended := make(chan error, 1)
	receiving.Go(func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case messages <- m:
			case <-ctx.Done():
				ended <- ctx.Err()
				return
			}
		}
	})
	in := &intake{f: f, id: id, stream: stream, alone: time.Now()}
	defer in.close()
	for {
		select {
		case m := <-messages:
			dog.Stop() // what this node's own disk takes is no fault of the parent's
			if err := in.take(ctx, m); err != nil {
				return err
			}
			dog.Reset(upstreamQuiet)
		case err := <-ended:
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			if errors.Is(err, io.EOF) {
				return errors.New("it has ended the stream")
			}
			return err
		}
		if err := f.remember(); err != nil {
			return err
		}
		if !f.follows() {
			return &endedError{how: endNoFollower, why: "this node takes part in Raft now"}
		}
	}
}

// intake is what comes in from one parent.
type intake struct {
	f      *following
	id     cluster.NodeID
	stream grpc.BidiStreamingClient[pb.FollowRequest, pb.FollowResponse]
	told   raftstore.Told
	spool  *raftstore.Spool
	alone  time.Time // since when the parent hears of no leader
	probed time.Time
}

func (in *intake) close() {
	if in.spool != nil {
		_ = in.spool.Close()
	}
}

// take does what one message asks for.
func (in *intake) take(ctx context.Context, m *pb.FollowResponse) error {
	if r := m.GetRedirect(); r != nil {
		return in.redirected(r)
	}
	if p := m.GetPulse(); p != nil {
		if err := in.pulse(ctx, p); err != nil {
			return err
		}
	}
	if len(m.GetEntries()) > 0 {
		entries := make([]*raft.Log, len(m.GetEntries()))
		for i, e := range m.GetEntries() {
			entries[i] = &raft.Log{
				Index: e.GetIndex(), Term: e.GetTerm(), Type: raft.LogType(e.GetType()), Data: e.GetData(), Extensions: e.GetExtensions(), AppendedAt: time.Unix(0, e.GetAppendedNs()),
			}
		}
		if err := in.f.log.Take(ctx, in.told, m.GetPrevIndex(), m.GetPrevTerm(), entries); err != nil {
			return err
		}
		return in.stream.Send(&pb.FollowRequest{Applied: in.f.log.AppliedIndex()})
	}
	return in.snapshot(ctx, m)
}

// snapshot takes what a message holds of one.
func (in *intake) snapshot(ctx context.Context, m *pb.FollowResponse) error {
	if s := m.GetSnapshot(); s != nil {
		in.close()
		in.spool = nil
		servers, err := raftstore.DecodeSnapshotConfiguration(s.GetConfiguration())
		if err != nil {
			return err
		}
		in.spool, err = in.f.log.Spool(raft.SnapshotMeta{
			Version: raft.SnapshotVersion(s.GetVersion()), Index: s.GetIndex(), Term: s.GetTerm(),
			Configuration: servers, ConfigurationIndex: s.GetConfigurationIndex(), Size: int64(s.GetSize()),
		})
		if err != nil {
			return err
		}
	}
	if len(m.GetChunk()) == 0 && !m.GetSnapshotEnd() {
		return nil
	}
	if in.spool == nil {
		return errors.New("a part of a snapshot that was not begun")
	}
	if _, err := in.spool.Write(m.GetChunk()); err != nil {
		return err
	}
	if !m.GetSnapshotEnd() {
		return nil
	}
	err := in.spool.Install(ctx, in.told)
	in.close()
	in.spool = nil
	if err != nil {
		return err
	}
	return in.stream.Send(&pb.FollowRequest{Applied: in.f.log.AppliedIndex()})
}

func (in *intake) redirected(r *pb.FollowRedirect) error {
	end := &endedError{how: endingOf(r.GetWhy()), why: "it does not feed this node: " + r.GetWhy().String()}
	for _, m := range r.GetInstead()[:min(len(r.GetInstead()), 4*feedChildren)] {
		id := cluster.NodeID(m.GetId())
		if id == in.f.self || !idPattern.MatchString(m.GetId()) || len(m.GetAddress()) > maxAddress {
			continue
		}
		in.f.learn(cluster.Member{ID: id, Address: m.GetAddress()})
		end.instead = append(end.instead, id)
	}
	return end
}

// pulse takes the parent's word on the cluster.
func (in *intake) pulse(ctx context.Context, p *pb.FollowPulse) error {
	f := in.f
	if slices.Contains(p.GetPath(), string(f.self)) {
		return &endedError{how: endLoop, why: "it is fed by this node itself"}
	}
	if len(p.GetPath()) == 0 || p.GetPath()[len(p.GetPath())-1] != string(in.id) {
		return &endedError{how: endNoUpstream, why: "nobody feeds it"}
	}
	f.mu.Lock()
	began := f.parent == ""
	f.parent, f.path, f.heard, f.cast = in.id, p.GetPath(), time.Now(), false
	f.mu.Unlock()
	if began {
		f.slog.Info("this follower is fed", "parent", string(in.id), "depth", len(p.GetPath()))
	}
	in.told = raftstore.Told{Leader: cluster.NodeID(p.GetLeader()), Quorum: p.GetQuorum() && p.GetLeader() != "", CaughtUp: p.GetCaughtUp(), Applied: p.GetApplied()}
	if err := f.log.Take(ctx, in.told, 0, 0, nil); err != nil {
		return err
	}
	now := time.Now()
	if in.told.Quorum {
		in.alone = now
		return nil
	}
	if now.Sub(in.alone) < deafFor || now.Sub(in.probed) < deafFor {
		return nil
	}
	in.probed = now.Add(rand.N(deafFor))
	return f.better(ctx, in.id)
}

// better asks one other possible parent whether it hears from a leader; then
// that one is to feed this node.
func (f *following) better(ctx context.Context, than cluster.NodeID) error {
	others := slices.DeleteFunc(slices.Clone(f.candidates()), func(m cluster.Member) bool { return m.ID == than })
	id, _ := f.parents.next(time.Now(), others, rand.IntN)
	if id == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, upstreamQuiet/2)
	defer cancel()
	stream, err := f.call(ctx, id, true)
	if err != nil {
		f.parents.ended(time.Now(), id, endUnreachable, nil, rand.IntN)
		return nil
	}
	m, err := stream.Recv()
	if err != nil || !m.GetPulse().GetQuorum() || slices.Contains(m.GetPulse().GetPath(), string(f.self)) {
		return nil
	}
	return &endedError{how: endBetter, why: "it hears of no leader, and " + string(id) + " does", instead: []cluster.NodeID{id}}
}
