package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/fallback"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/syncer"
)

// progressEvery is how often a waiting person is told how far it is.
const progressEvery = 200 * time.Millisecond

// Resync does now what the daemon does all the time, and tells how it went.
func (s *localService) Resync(req *pb.ResyncRequest, stream grpc.ServerStreamingServer[pb.ResyncEvent]) error {
	trees, err := s.trees.some(req.GetTrees())
	if err != nil {
		return err
	}
	ctx := stream.Context()
	r := resyncing{log: s.log, trees: trees, moved: s.moved, send: stream.Send}
	if req.GetDryRun() {
		if !s.log.Quorum() && !s.readAll() {
			return s.noQuorum() // what is committed is not known here at all
		}
		return r.dryRun(ctx)
	}
	return s.explain(r.run(ctx, s.trees))
}

// resyncing is one resync, by the daemon or without one.
type resyncing struct {
	log   localLog
	trees []*tree
	moved func() (in, out fallback.Moved) // by the carriers, since the start
	send  func(*pb.ResyncEvent) error
}

// dryRun lists what differs and changes nothing.
func (r resyncing) dryRun(ctx context.Context) error {
	sum := &pb.Summary{Revision: uint64(r.log.Revision())}
	for _, t := range r.trees {
		err := t.syncr.Differences(ctx, func(d syncer.Difference) error {
			if d.What == "held" {
				sum.Held++
				return nil
			}
			sum.Differences++
			return r.send(&pb.ResyncEvent{Of: &pb.ResyncEvent_Difference{Difference: &pb.Difference{
				Tree: t.cfg.Name, Path: []byte(d.Path), What: d.What, Local: d.Local, Size: d.Size, Why: d.Why,
			}}})
		})
		if err != nil {
			return fmt.Errorf("tree %s: %w", t.cfg.Name, err)
		}
	}
	return r.send(&pb.ResyncEvent{Of: &pb.ResyncEvent_Summary{Summary: sum}})
}

// run waits until the trees' edits are in the log and the newest revision is
// on the disk; not for a quorum that does not come back.
func (r resyncing) run(ctx context.Context, set *treeSet) error {
	in, out := r.moved()
	g, gctx := errgroup.WithContext(ctx)
	working, done := context.WithCancel(gctx)
	g.Go(func() error {
		defer done()
		if err := set.settle(gctx, r.trees); err != nil {
			return err
		}
		if err := r.log.Barrier(gctx); err != nil {
			return err
		}
		rev := r.log.Revision()
		for _, t := range r.trees {
			if err := t.syncr.WaitApplied(gctx, rev); err != nil {
				return fmt.Errorf("tree %s: %w", t.cfg.Name, err)
			}
		}
		return nil
	})
	g.Go(func() error { return r.progress(working) })
	g.Go(func() error { return untilNoQuorum(working, r.log) })
	if err := g.Wait(); err != nil {
		return err
	}
	sum, err := r.summary(ctx)
	if err != nil {
		return err
	}
	i, o := r.moved()
	in, out = i.Minus(in), o.Minus(out)
	sum.ReceivedContent, sum.ReceivedWire = uint64(in.Bytes), uint64(in.Wire)
	sum.SentContent, sum.SentWire = uint64(out.Bytes), uint64(out.Wire)
	return r.send(&pb.ResyncEvent{Of: &pb.ResyncEvent_Summary{Summary: sum}})
}

// untilNoQuorum returns nil when ctx ends, or the reason why nothing can be
// committed once that has lasted: the loop itself would try for ever.
func untilNoQuorum(ctx context.Context, log interface{ Quorum() bool }) error {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	seen := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if log.Quorum() {
			seen = time.Now()
		} else if time.Since(seen) >= quorumWithin {
			return cluster.ErrNoQuorum
		}
	}
}

// progress tells how many paths are still worked on until ctx ends.
func (r resyncing) progress(ctx context.Context) error {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	most := map[string]uint64{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, t := range r.trees {
			st, err := t.syncr.Status(ctx)
			if err != nil {
				return nil // ctx ended
			}
			left := uint64(st.Loop.Unsettled)
			most[t.cfg.Name] = max(most[t.cfg.Name], left)
			if most[t.cfg.Name] == 0 {
				continue
			}
			err = r.send(&pb.ResyncEvent{Of: &pb.ResyncEvent_Progress{Progress: &pb.Progress{
				Tree: t.cfg.Name, Done: most[t.cfg.Name] - left, Total: most[t.cfg.Name],
			}}})
			if err != nil {
				return err
			}
		}
	}
}

func (r resyncing) summary(ctx context.Context) (*pb.Summary, error) {
	applied := r.log.Revision() // a witness has no tree that could be behind
	sum := &pb.Summary{Revision: uint64(applied)}
	for _, t := range r.trees {
		st, err := t.syncr.Status(ctx)
		if err != nil {
			return nil, err
		}
		conflicts, err := t.syncr.Conflicts()
		if err != nil {
			return nil, err
		}
		applied = min(applied, st.Loop.Applied)
		sum.Held += uint64(heldCount(st.Loop))
		sum.Conflicts += uint64(len(conflicts))
	}
	sum.Applied = uint64(applied)
	return sum, nil
}

// heldCount counts what status calls held: noted paths, or the whole tree.
func heldCount(st syncer.LoopStatus) int {
	n := len(st.Notes)
	if _, noted := st.Notes[""]; st.RootLost != "" && !noted {
		n++
	}
	return n
}

// Verify rehashes the trees and the blob store.
func (s *localService) Verify(req *pb.VerifyRequest, stream grpc.ServerStreamingServer[pb.VerifyEvent]) error {
	trees, err := s.trees.some(req.GetTrees())
	if err != nil {
		return err
	}
	ctx := stream.Context()
	sum := &pb.Summary{Past: !s.upToDate(ctx)}
	if sum.Past && !s.readAll() {
		return s.noQuorum() // what is committed is not known here at all
	}
	sum.Revision = uint64(s.log.Revision())
	drift := func(d *pb.Difference) error {
		sum.Differences++
		return stream.Send(&pb.VerifyEvent{Of: &pb.VerifyEvent_Drift{Drift: d}})
	}
	for _, t := range trees {
		done, err := t.syncr.Verify(ctx, func(d syncer.Drift) error {
			return drift(&pb.Difference{Tree: t.cfg.Name, Path: []byte(d.Path), What: d.What, Size: d.Size, Why: d.Why})
		})
		if err != nil {
			return fmt.Errorf("tree %s: %w", t.cfg.Name, err)
		}
		sum.Bytes += uint64(done.Bytes)
	}
	if len(req.GetTrees()) == 0 {
		var failed error
		err := s.blobs.Verify(ctx, func(ref manifest.BlobRef, bad error) {
			sum.Bytes += uint64(ref.Size)
			if bad != nil && failed == nil {
				failed = drift(&pb.Difference{Tree: "(blob store)", Path: []byte(ref.Digest.String()), What: "corrupt", Size: ref.Size, Why: bad.Error()})
			}
		})
		if err = errors.Join(err, failed); err != nil {
			return fmt.Errorf("blob store: %w", err)
		}
	}
	return stream.Send(&pb.VerifyEvent{Of: &pb.VerifyEvent_Summary{Summary: sum}})
}
