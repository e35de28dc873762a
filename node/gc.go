package node

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// tidyEvery is how often history is trimmed and content collected.
const tidyEvery = time.Hour

// keepAlways is how many revisions are kept however old they seem to be: ages
// come from clocks, and clocks may be decades off.
const keepAlways = 100

// pastLog is what the janitor needs of the log.
type pastLog interface {
	membership
	proposer
	revisions
	contentLog
}

// janitor forgets: the leader trims the history as the settings say, and every
// node removes content that nothing stands for any more. One goroutine.
type janitor struct {
	self  cluster.NodeID
	log   pastLog
	keep  config.History
	blobs *recentBlobs
	trees *treeSet
	now   func() time.Time // what most members' clocks say, see peers.clock
	slog  *slog.Logger
}

func (j *janitor) run(ctx context.Context) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := j.trim(ctx); err != nil && ctx.Err() == nil {
			j.slog.Warn("cannot trim the history now", "err", err)
		}
		if err := j.collect(ctx); err != nil && ctx.Err() == nil {
			j.slog.Warn("cannot collect content now", "err", err)
		}
	}
}

// trim proposes to forget what is older than the settings say; the leader
// does it for all.
func (j *janitor) trim(ctx context.Context) error {
	if leader, ok := j.log.Leader(); !ok || leader != j.self {
		return nil
	}
	below := trimBelow(j.log.History("", 0, math.MaxInt), j.log.Revision(), j.keep, j.now())
	if below == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := j.log.Do(ctx, command(&pb.Command{Do: &pb.Command_TrimHistory{TrimHistory: &pb.TrimHistory{Below: uint64(below)}}}))
	if err != nil {
		return err
	}
	j.slog.Info("trimmed the history", "below", below)
	return raftstore.OutcomeErr(out)
}

// trimBelow is the revision below which history is forgotten, 0 for nothing.
// commits come newest first. A revision's age is what its proposer's clock
// said, so one that claims to be old among newer ones does not shorten the
// history: only what stands before the first old enough run is cut. Where all
// clocks are wrong, or the only one, the newest revisions are kept all the same.
func trimBelow(commits []manifest.Commit, newest manifest.Revision, keep config.History, now time.Time) manifest.Revision {
	oldest := now.Add(-keep.Keep.Std()).UnixNano()
	var below manifest.Revision
	for i := len(commits) - 1; i >= 0; i-- {
		c := commits[i]
		tooMany := uint64(newest-c.Revision) >= keep.Revisions
		tooOld := keep.Keep > 0 && c.Time < oldest && newest-c.Revision >= keepAlways
		if !tooMany && !tooOld {
			break
		}
		below = c.Revision + 1
	}
	return below
}

// collect removes content that is no root of the collection: see live. It
// works only on a node that knows what is committed, with all trees open.
func (j *janitor) collect(ctx context.Context) error {
	defer j.blobs.age()
	if !j.log.CaughtUp() || !j.trees.complete() {
		return nil
	}
	live, err := j.live()
	if err != nil {
		return err
	}
	done, err := j.blobs.Collect(ctx, func(d manifest.Digest) bool {
		_, ok := live[d]
		return ok || j.blobs.recent(d)
	})
	if err != nil {
		return fmt.Errorf("collect content: %w", err)
	}
	j.slog.Info("collected content", "result", fmt.Sprintf("%+v", done))
	return nil
}

// live gathers every digest that something stands for.
func (j *janitor) live() (map[manifest.Digest]struct{}, error) {
	live := map[manifest.Digest]struct{}{}
	err := j.stands(func(ref manifest.BlobRef, _ func() string) { live[ref.Digest] = struct{}{} })
	return live, err
}

// stands calls fn for all content that something stands for, and for what: what
// the log stands for, and each tree's ancestors, conflicts and notes. The trees
// come first: what moves from a tree's records into the log meanwhile is then
// seen in one of both.
func (j *janitor) stands(fn func(ref manifest.BlobRef, what func() string)) error {
	for _, t := range j.trees.all() {
		err := t.syncr.Live(func(p manifest.Path, e manifest.Entry, why string) {
			if e.HasContent() {
				fn(e.Blob(), func() string { return fmt.Sprintf("%s: %s (%s)", t.cfg.Name, p, why) })
			}
		})
		if err != nil {
			return fmt.Errorf("tree %s: %w", t.cfg.Name, err)
		}
	}
	eachStand(j.log, func(ref manifest.BlobRef, _ manifest.Revision, what func() string) { fn(ref, what) })
	return nil
}
