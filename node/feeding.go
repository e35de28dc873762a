package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

const (
	// feedChildren is how many followers one node feeds; more are sent on to
	// these.
	feedChildren = 8
	// pulseEvery is how often a parent says what it knows of the cluster.
	pulseEvery = 250 * time.Millisecond
	// feedAhead is how many portions may be under way unacknowledged.
	feedAhead = 8
	// feedChunk is a message's part of a snapshot: on a slow link, too, one follows
	// the other well within upstreamQuiet.
	feedChunk = 32 << 10
)

// fedLog is what feeding needs of the log.
type fedLog interface {
	membership
	Feed(raftstore.Place) (*raftstore.Feed, error)
	Tell() raftstore.Told
	Follows(cluster.NodeID) bool
}

// feeding hands the log to this node's children: followers that have dialed it.
// One goroutine per child sends, one receives. Safe for concurrent use.
type feeding struct {
	pb.UnimplementedFeedServer
	self    cluster.NodeID
	log     fedLog
	path    func() (path []string, ok bool) // from Raft down to this node; false: nobody feeds this follower
	unread  func() bool                     // the log here is not read: who follows is not known
	address func(cluster.NodeID) (string, bool)
	slog    *slog.Logger

	mu       sync.Mutex
	children map[cluster.NodeID]*fedChild
}

// fedChild is one child.
type fedChild struct {
	cancel context.CancelFunc
	acked  uint64        // guarded by feeding.mu
	news   chan struct{} // acked has grown
}

// Follow feeds one follower until either end has enough.
func (f *feeding) Follow(stream grpc.BidiStreamingServer[pb.FollowRequest, pb.FollowResponse]) error {
	caller, ok := transport.Peer(stream.Context())
	if !ok {
		return status.Error(codes.Unauthenticated, "no certificate")
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	at := first.GetPlace()
	if at == nil {
		return status.Error(codes.InvalidArgument, "the first message says how far the log goes")
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	child, refused := f.admit(caller, at.GetProbe(), cancel)
	if refused != nil {
		return stream.Send(&pb.FollowResponse{Redirect: refused})
	}
	if at.GetProbe() {
		return stream.Send(f.pulse())
	}
	defer f.leave(caller, child)
	feed, err := f.log.Feed(raftstore.Place{Applied: at.GetApplied(), AppliedTerm: at.GetAppliedTerm(), Last: at.GetLast(), LastTerm: at.GetLastTerm()})
	switch {
	case errors.Is(err, raftstore.ErrBehind):
		return stream.Send(&pb.FollowResponse{Redirect: &pb.FollowRedirect{Why: pb.FollowRedirect_BEHIND}})
	case errors.Is(err, raftstore.ErrDiverged):
		f.slog.Error("a follower's log is not a part of this cluster's: remove that node and join it anew", "id", string(caller), "err", err)
		return stream.Send(&pb.FollowResponse{Redirect: &pb.FollowRedirect{Why: pb.FollowRedirect_DIVERGED}})
	case err != nil:
		return err
	}
	f.slog.Debug("feeding a follower", "id", string(caller), "from", at.GetApplied())
	var sides sync.WaitGroup
	defer sides.Wait()
	defer cancel()
	sides.Go(func() {
		defer cancel()
		f.heed(stream, child)
	})
	portions := make(chan raftstore.Portion)
	failed := make(chan error, 1)
	sides.Go(func() { failed <- read(ctx, feed, portions) })
	return f.send(ctx, stream, caller, child, portions, failed)
}

// read takes portions out of the log, one ahead of what is sent.
func read(ctx context.Context, feed *raftstore.Feed, to chan<- raftstore.Portion) error {
	for {
		p, err := feed.Next(ctx)
		if err != nil {
			return err
		}
		select {
		case to <- p:
		case <-ctx.Done():
			if p.Content != nil {
				_ = p.Content.Close()
			}
			return ctx.Err()
		}
	}
}

// heed takes the child's acknowledgements until the stream ends.
func (f *feeding) heed(stream grpc.BidiStreamingServer[pb.FollowRequest, pb.FollowResponse], child *fedChild) {
	for {
		m, err := stream.Recv()
		if err != nil {
			return
		}
		f.mu.Lock()
		child.acked = max(child.acked, m.GetApplied())
		f.mu.Unlock()
		select {
		case child.news <- struct{}{}:
		default:
		}
	}
}

// send is the stream's one sender.
func (f *feeding) send(ctx context.Context, stream grpc.BidiStreamingServer[pb.FollowRequest, pb.FollowResponse], id cluster.NodeID, child *fedChild, portions <-chan raftstore.Portion, failed <-chan error) error {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	var ahead []uint64 // last index of each portion that is not acknowledged
	if err := stream.Send(f.pulse()); err != nil {
		return err
	}
	for {
		f.mu.Lock()
		acked := child.acked
		f.mu.Unlock()
		ahead = slices.DeleteFunc(ahead, func(last uint64) bool { return last <= acked })
		in := portions
		if len(ahead) >= feedAhead {
			in = nil // a slow child waits for itself
		}
		select {
		case p := <-in:
			last, err := sendPortion(stream, p, f.pulse)
			if err != nil {
				return err
			}
			ahead = append(ahead, last)
		case <-child.news:
		case <-tick.C:
			if why := f.unfit(id); why != nil && why.GetWhy() != pb.FollowRedirect_NO_UPSTREAM { // it has a moment to find one
				return stream.Send(&pb.FollowResponse{Redirect: why})
			}
			if err := stream.Send(f.pulse()); err != nil {
				return err
			}
		case err := <-failed:
			if errors.Is(err, raftstore.ErrBehind) {
				return stream.Send(&pb.FollowResponse{Redirect: &pb.FollowRedirect{Why: pb.FollowRedirect_BEHIND}})
			}
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// sendPortion sends entries, or a snapshot in chunks, with pulses in between.
func sendPortion(stream grpc.BidiStreamingServer[pb.FollowRequest, pb.FollowResponse], p raftstore.Portion, pulse func() *pb.FollowResponse) (last uint64, err error) {
	if p.Snapshot == nil {
		m := &pb.FollowResponse{PrevIndex: p.Prev, PrevTerm: p.PrevTerm}
		for _, e := range p.Entries {
			m.Entries = append(m.Entries, &pb.LogEntry{
				Index: e.Index, Term: e.Term, Type: uint32(e.Type), Data: e.Data, Extensions: e.Extensions, AppendedNs: e.AppendedAt.UnixNano(),
			})
			last = e.Index
		}
		return last, stream.Send(m)
	}
	defer func() { err = errors.Join(err, p.Content.Close()) }()
	s := p.Snapshot
	m := &pb.FollowResponse{Snapshot: &pb.FollowSnapshot{
		Index: s.Index, Term: s.Term, ConfigurationIndex: s.ConfigurationIndex, Configuration: raft.EncodeConfiguration(s.Configuration),
		Version: uint32(s.Version), Size: uint64(s.Size),
	}}
	told := time.Now()
	for {
		chunk := make([]byte, feedChunk) // gRPC may keep it
		n, err := io.ReadFull(p.Content, chunk)
		m.Chunk = chunk[:n]
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			m.SnapshotEnd, err = true, nil
		}
		if err == nil {
			err = stream.Send(m)
		}
		if err != nil || m.GetSnapshotEnd() {
			return s.Index, err
		}
		m = &pb.FollowResponse{}
		if time.Since(told) > pulseEvery {
			told, m.Pulse = time.Now(), pulse().GetPulse()
		}
	}
}

// pulse is what this node knows at this moment.
func (f *feeding) pulse() *pb.FollowResponse {
	told := f.log.Tell()
	path, _ := f.path()
	return &pb.FollowResponse{Pulse: &pb.FollowPulse{
		Leader: string(told.Leader), Quorum: told.Quorum, CaughtUp: told.CaughtUp, Applied: told.Applied, Path: path,
	}}
}

// unfit tells why somebody cannot be fed here, nil if it can.
func (f *feeding) unfit(id cluster.NodeID) *pb.FollowRedirect {
	path, ok := f.path()
	switch {
	case !f.unread() && !f.log.Follows(id):
		return &pb.FollowRedirect{Why: pb.FollowRedirect_NO_FOLLOWER}
	case slices.Contains(path, string(id)):
		return &pb.FollowRedirect{Why: pb.FollowRedirect_LOOP}
	case !ok:
		return &pb.FollowRedirect{Why: pb.FollowRedirect_NO_UPSTREAM}
	}
	return nil
}

// admit makes the caller a child, or says where else to ask. A child that comes
// again takes its own place.
func (f *feeding) admit(id cluster.NodeID, probe bool, cancel context.CancelFunc) (*fedChild, *pb.FollowRedirect) {
	if why := f.unfit(id); why != nil {
		return nil, why
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old, mine := f.children[id]
	if !mine && len(f.children) >= feedChildren {
		full := &pb.FollowRedirect{Why: pb.FollowRedirect_FULL}
		for c := range f.children {
			if addr, ok := f.address(c); ok {
				full.Instead = append(full.Instead, &pb.Member{Id: string(c), Address: addr, Follower: true})
			}
		}
		return nil, full
	}
	if probe {
		return nil, nil
	}
	if mine {
		old.cancel()
	}
	child := &fedChild{cancel: cancel, news: make(chan struct{}, 1)}
	if f.children == nil {
		f.children = map[cluster.NodeID]*fedChild{}
	}
	f.children[id] = child
	return child, nil
}

func (f *feeding) leave(id cluster.NodeID, child *fedChild) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.children[id] == child {
		delete(f.children, id)
	}
}

// count is how many followers this node feeds.
func (f *feeding) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.children)
}
