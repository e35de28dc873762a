package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

const (
	helloEvery   = time.Second
	helloTimeout = 2 * time.Second
	// aliveFor is how long after its last word a member counts as alive.
	aliveFor = 3 * time.Second
)

// dialer connects to members by id.
type dialer interface {
	Dial(ctx context.Context, id cluster.NodeID) (*grpc.ClientConn, error)
}

// peers says hello to every member once a second and remembers what each last
// said: the heartbeat above Raft. It is also how addresses travel. Safe for
// concurrent use; run is its one goroutine, with one more per call under way.
type peers struct {
	self    cluster.NodeID
	members func() []cluster.Member // without this node
	dial    dialer
	book    *book
	state   func(context.Context) *pb.NodeState
	// strangers tells that the log is not read: who is a member is not known.
	strangers func() bool
	now       func() time.Time
	started   time.Time // of this daemon: it has heard nothing before
	log       *slog.Logger
	reached   func(id cluster.NodeID, term, index uint64) // how far a member's log is; may be nil
	back      func()                                      // somebody is heard again who was silent; may be nil

	place place  // in the tree of followers
	told  func() // a member says that this node is a follower; may be nil

	mu    sync.Mutex
	heard map[cluster.NodeID]*heard
	below map[cluster.NodeID]passed // what others pass on, see below.go
}

// heard is what is known of one member.
type heard struct {
	at      time.Time // of its last word; zero: never
	state   *pb.NodeState
	err     error // of the last attempt to reach it
	calling bool
}

// run says hello until ctx ends, and waits for the calls under way.
func (p *peers) run(ctx context.Context) error {
	var calls sync.WaitGroup
	defer calls.Wait()
	tick := time.NewTicker(helloEvery)
	defer tick.Stop()
	for {
		p.round(ctx, &calls, false)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *peers) round(ctx context.Context, calls *sync.WaitGroup, all bool) {
	members := p.members()
	req := p.request(ctx)
	req.All = all && p.place.follows()
	for _, m := range members {
		if p.begin(m.ID) {
			calls.Go(func() { p.hello(ctx, m.ID, req) })
		}
	}
	p.forget(members)
}

// refresh says hello to everybody now and waits for the answers, as long as
// ctx lets it: a person who asks for the status wants the present.
func (p *peers) refresh(ctx context.Context) {
	var calls sync.WaitGroup
	p.round(ctx, &calls, true)
	calls.Wait()
}

// begin tells whether a member may be called: one call at a time.
func (p *peers) begin(id cluster.NodeID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.of(id)
	free := !h.calling
	h.calling = true
	return free
}

// request is what this node says.
func (p *peers) request(ctx context.Context) *pb.HelloRequest {
	return &pb.HelloRequest{Members: toMessages(p.known()), State: p.state(ctx), Below: p.subtree()}
}

// hello exchanges what is known with one member.
func (p *peers) hello(ctx context.Context, id cluster.NodeID, req *pb.HelloRequest) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	conn, err := p.dial.Dial(ctx, id)
	var res *pb.HelloResponse
	if err == nil {
		res, err = pb.NewClusterClient(conn).Hello(ctx, req)
	}
	if err == nil {
		err = p.hear(id, res.GetState(), res.GetMembers())
	}
	if err == nil {
		p.hearBelow(id, res.GetBelow())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.of(id)
	h.calling, h.err = false, err
}

// What a member may say of itself, at most.
const (
	maxVersion    = 64 // bytes
	maxTreeStates = 256
)

// hear takes what a member said, in an answer or in a call of its own. from is
// who its certificate names: it speaks for itself, and about others by hearsay.
func (p *peers) hear(from cluster.NodeID, s *pb.NodeState, members []*pb.Member) error {
	if s.GetId() != string(from) {
		return status.Errorf(codes.InvalidArgument, "%s says that it is %q", from, clip(s.GetId()))
	}
	if len(s.GetVersion()) > maxVersion || strings.ContainsFunc(s.GetVersion(), unicode.IsControl) || len(s.GetTrees()) > maxTreeStates {
		return status.Errorf(codes.InvalidArgument, "%s says more of itself than there can be", from)
	}
	clean(s)
	strangers := p.strangers()
	for _, m := range fromMessages(members) {
		switch m.ID {
		case p.self: // nobody knows better than this node, but for a role that it was given while it was away
			if m.Role == cluster.Follower && p.told != nil {
				p.told()
			}
		case from:
			if len(m.Address) <= maxAddress {
				p.book.learn(m)
			}
		default:
			p.book.hear(m, !p.alive(m.ID), strangers)
		}
	}
	if p.reached != nil {
		p.reached(from, s.GetLogTerm(), s.GetLogApplied())
	}
	p.mu.Lock()
	h, now := p.of(from), p.now()
	silent := h.at.IsZero() || now.Sub(h.at) > aliveFor
	h.at, h.state = now, s
	p.mu.Unlock()
	if silent && p.back != nil {
		p.back()
	}
	return nil
}

// clean makes what a member says of itself fit to be printed.
func clean(s *pb.NodeState) {
	s.Lacks = s.GetLacks()[:min(len(s.GetLacks()), namedAtMost)]
	for i, what := range s.GetLacks() {
		s.Lacks[i] = plainText(what, maxLack)
	}
	s.Version = plainText(s.GetVersion(), maxVersion)
	cleanTargets(s)
}

// clip shortens what somebody else wrote, for an error message.
func clip(s string) string {
	if len(s) > maxVersion {
		return s[:maxVersion] + "…"
	}
	return s
}

// of returns what is known of a member; the lock is held.
func (p *peers) of(id cluster.NodeID) *heard {
	h, ok := p.heard[id]
	if !ok {
		h = &heard{}
		p.heard[id] = h
	}
	return h
}

// forget drops who is no member any more.
func (p *peers) forget(members []cluster.Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keep := make(map[cluster.NodeID]bool, len(members))
	for _, m := range members {
		keep[m.ID] = true
	}
	for id, h := range p.heard {
		if !keep[id] && !h.calling && !p.place.follower(id) {
			delete(p.heard, id)
		}
	}
	p.forgetBelow()
}

// last tells what a member last said; alive, whether that was just now. This
// node itself is always alive.
func (p *peers) last(id cluster.NodeID) (h heard, alive bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.heard[id]; ok {
		h = *e
	}
	if b, alive := p.lastBelow(id, h); alive {
		return b, true
	}
	return h, id == p.self || !h.at.IsZero() && p.now().Sub(h.at) <= aliveFor
}

// deadSince tells since when a member has been silent, as far as is known here;
// zero while it is alive.
func (p *peers) deadSince(id cluster.NodeID) time.Time {
	h, alive := p.last(id)
	switch {
	case alive:
		return time.Time{}
	case h.at.IsZero():
		return p.started
	}
	return h.at
}

// alive is last without the details.
func (p *peers) alive(id cluster.NodeID) bool {
	_, alive := p.last(id)
	return alive
}

// disowned tells whether the others refuse this node as no member, and none of
// them speaks to it. Whoever is removed while it cannot be reached, or as a
// voter, is not always told by the log.
func (p *peers) disowned() bool {
	refused := p.place.disowned != nil && p.place.disowned() // who is fed by nobody says hello to nobody
	for _, m := range p.members() {
		h, alive := p.last(m.ID)
		switch {
		case errors.Is(h.err, cluster.ErrNotMember):
			refused = true
		case alive:
			return false
		}
	}
	return refused
}

// lonely tells whether half of the others, or more, are silent.
func (p *peers) lonely() bool {
	members, silent := p.members(), 0
	if p.place.follows() && len(members) == 0 {
		return true // nobody feeds this follower
	}
	for _, m := range members {
		if !p.alive(m.ID) {
			silent++
		}
	}
	return silent > 0 && silent*2 >= len(members)
}

// clock is what time it is: what the clock in the middle says, of those of the
// living members and this node's own; the earlier one of two. A few clocks that
// are off decide nothing.
func (p *peers) clock() time.Time {
	now := p.now()
	clocks := []time.Time{now}
	for _, m := range p.members() {
		if h, alive := p.last(m.ID); alive {
			clocks = append(clocks, time.Unix(0, h.state.GetClockNs()).Add(now.Sub(h.at)))
		}
	}
	slices.SortFunc(clocks, time.Time.Compare)
	return clocks[(len(clocks)-1)/2]
}

func toMessages(members []cluster.Member) []*pb.Member {
	out := make([]*pb.Member, len(members))
	for i, m := range members {
		out[i] = toMessage(m)
	}
	return out
}

func toMessage(m cluster.Member) *pb.Member {
	return &pb.Member{
		Id: string(m.ID), Name: m.Name, Address: m.Address, Store: m.Store,
		JoinedNs: m.Joined, AddressEpoch: m.Epoch, Format: m.Format, Witness: m.Witness, Follower: m.Role == cluster.Follower,
	}
}

func fromMessages(members []*pb.Member) []cluster.Member {
	out := make([]cluster.Member, len(members))
	for i, m := range members {
		out[i] = cluster.Member{
			ID: cluster.NodeID(m.GetId()), Name: m.GetName(), Address: m.GetAddress(), Store: m.GetStore(),
			Joined: m.GetJoinedNs(), Epoch: m.GetAddressEpoch(), Format: m.GetFormat(), Witness: m.GetWitness(),
		}
		if m.GetFollower() {
			out[i].Role = cluster.Follower
		}
	}
	return out
}
