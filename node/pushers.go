package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

const (
	// pushersEvery is how often a leader looks at who pushes to the targets.
	pushersEvery = time.Second
	// pusherDead is after which silence a pusher is replaced. It may be wrong: the
	// target itself refuses whoever is not the newest.
	pusherDead = 4 * time.Second
	// pusherPatience is for how long a pusher may fail to reach its target before
	// another member tries, and for how long it may say nothing about it.
	pusherPatience = 10 * time.Second
	pusherSilence  = 30 * time.Second
	// triedFor is for how long who failed is not asked again.
	triedFor = 10 * time.Minute
	// laggingLoad is what a member counts for that has not all content yet.
	laggingLoad = 1 << 20
)

// pushers names who pushes to each target while this node leads. It looks at
// what is and names who is missing, so that a change of leaders loses nothing
// but what it remembers of failures. One goroutine.
type pushers struct {
	self   cluster.NodeID
	log    targetLog
	peers  *peers
	own    func() []*pb.TargetState // of this node
	visit  bool                     // this node pushes nothing: it is soon gone again
	logger *slog.Logger
	now    func() time.Time

	since time.Time // when this node began to lead, zero while it does not
	seen  map[string]*pushedBy
}

// pushedBy is what a leader remembers of a target.
type pushedBy struct {
	epoch uint64
	since time.Time                    // when this leader first saw that epoch
	tried map[cluster.NodeID]time.Time // who could not reach it, and when that was found
}

func (p *pushers) run(ctx context.Context) error {
	ch, stop := p.log.Watch()
	defer stop()
	tick := time.NewTicker(pushersEvery)
	defer tick.Stop()
	for {
		if leader, ok := p.log.Leader(); ok && leader == p.self && p.log.TargetsKnown() {
			if p.since.IsZero() {
				p.since = p.now()
			}
			p.step(ctx)
		} else {
			p.since = time.Time{}
			clear(p.seen)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-ch:
		}
	}
}

// step names the pushers that are missing.
func (p *pushers) step(ctx context.Context) {
	targets := p.log.Targets()
	if len(targets) == 0 {
		clear(p.seen)
		return
	}
	load, named := map[cluster.NodeID]int{}, map[string]bool{}
	for _, t := range targets {
		load[t.Pusher]++
		named[t.Name] = true
	}
	for name := range p.seen {
		if !named[name] {
			delete(p.seen, name)
		}
	}
	members := p.log.Members()
	for _, t := range targets {
		id, ok := raftstore.NextPusher(t, p.candidates(t, members, load))
		if !ok {
			continue
		}
		if err := p.assign(ctx, t, id); err != nil {
			p.logger.Debug("cannot name a pusher now", "target", t.Name, "err", err)
			continue
		}
		load[t.Pusher]--
		load[id]++
		p.logger.Info("a target has another pusher", "target", t.Name, "pusher", id, "before", t.Pusher)
	}
}

func (p *pushers) assign(ctx context.Context, t cluster.Target, id cluster.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, steerWithin)
	defer cancel()
	out, err := p.log.Do(ctx, command(&pb.Command{Do: &pb.Command_AssignTarget{AssignTarget: &pb.AssignTarget{
		Name: t.Name, Node: string(id), Epoch: t.Epoch,
	}}}))
	if err != nil {
		return err
	}
	return raftstore.OutcomeErr(out)
}

// candidates is what is known of everybody who may push to a target.
func (p *pushers) candidates(t cluster.Target, members []cluster.Member, load map[cluster.NodeID]int) []raftstore.Pusher {
	now := p.now()
	seen := p.seen[t.Name]
	if seen == nil {
		seen = &pushedBy{tried: map[cluster.NodeID]time.Time{}}
		p.seen[t.Name] = seen
	}
	if seen.since.IsZero() || seen.epoch != t.Epoch {
		seen.epoch, seen.since = t.Epoch, now
	}
	for id, at := range seen.tried {
		if now.Sub(at) > triedFor {
			delete(seen.tried, id)
		}
	}
	var out []raftstore.Pusher
	for _, m := range members {
		if m.Role == cluster.Follower {
			continue
		}
		c := p.candidate(m.ID)
		c.Load += load[m.ID]
		if m.ID == t.Pusher && c.Alive && p.fails(t, seen, now) {
			c.Failing, seen.tried[m.ID] = true, now
		}
		_, c.Tried = seen.tried[m.ID]
		out = append(out, c)
	}
	return out
}

// candidate is what is known of a member, whatever the target. Who was silent
// before this node led does not count as dead: it may have been cut off itself.
func (p *pushers) candidate(id cluster.NodeID) raftstore.Pusher {
	if id == p.self { // which leads
		return raftstore.Pusher{ID: id, Alive: !p.visit, Dead: p.visit}
	}
	h, alive := p.peers.last(id)
	last := h.at
	if last.Before(p.since) {
		last = p.since
	}
	c := raftstore.Pusher{ID: id, Dead: p.now().Sub(last) > pusherDead}
	c.Alive = alive && h.state.GetRaft() && !h.state.GetVisit()
	if h.state.GetContent()+nearly < uint64(p.log.Revision()) {
		c.Load = laggingLoad
	}
	return c
}

// fails tells whether a pusher that lives does not reach its target.
func (p *pushers) fails(t cluster.Target, seen *pushedBy, now time.Time) bool {
	var told *pb.TargetState
	at := now
	if t.Pusher == p.self {
		told = toldOf(t, p.own())
	} else {
		h, _ := p.peers.last(t.Pusher)
		told, at = toldOf(t, h.state.GetTargets()), h.at
	}
	if told == nil {
		return now.Sub(seen.since) > pusherSilence
	}
	failing := time.Duration(min(told.GetFailingMs(), 1<<40)) * time.Millisecond
	return failing > 0 && failing+now.Sub(at) > pusherPatience
}
