package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/syncer"
)

const (
	// busyTries is how often a file that somebody writes is tried within a push.
	busyTries = 4
	// settleMost is how long a push waits for displaced files to come to rest.
	settleMost = 2 * time.Second
	// maxEntries bounds a manifest.
	maxEntries = 20_000_000
)

// modeMask is which permission bits a tree takes over.
func modeMask(t config.Tree) uint32 { return syncer.DefaultModeMask &^ uint32(t.ModeMask) }

// receiving is one tree of one session.
type receiving struct {
	r     *Receiver
	l     *link
	hello *pb.PushHello
	tree  config.Tree
	t     *syncer.Target
	state treeState

	disk  []syncer.Surveyed
	model *manifest.Manifest // what stands there
	told  []manifest.Path    // in the order of the sums
	wants []want
	gone  map[manifest.Path]bool
	skip  map[manifest.Path]bool // left alone, with what is below
	stays map[manifest.Path]bool // directories that cannot go, for what is in them

	report pb.PushReport
	lines  []Line
}

func (r *Receiver) treeDir(name string) string { return filepath.Join(r.cfg.DataDir, "trees", name) }

// tree brings one tree to what is pushed.
func (r *Receiver) tree(ctx context.Context, l *link, hello *pb.PushHello, m *pb.PushTree) error {
	tree, err := r.treeCalled(m.GetName())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.treeDir(tree.Name), 0o700); err != nil {
		return err
	}
	if hello.GetEpoch() == 0 || hello.GetCluster() == "" { // a person's push
		return r.bring(ctx, l, hello, m, tree, 0)
	}
	// A cluster's pusher: whoever pushed for it before has to stop, and is waited
	// for.
	guarded, stop, err := r.fence(tree.Name).enter(ctx, l, hello)
	if err != nil {
		return err
	}
	defer stop()
	err = r.bring(guarded, l, hello, m, tree, claimMost)
	if why := context.Cause(guarded); err != nil && why != nil {
		return why
	}
	return err
}

// bring is tree, for a pusher that may push. Who stands in its way is waited for,
// as long as patience lasts.
func (r *Receiver) bring(ctx context.Context, l *link, hello *pb.PushHello, m *pb.PushTree, tree config.Tree, patience time.Duration) (err error) {
	var release func()
	if err := patiently(ctx, patience, func() (err error) { release, err = r.claim(tree.Name); return err }, isBusy); err != nil {
		return err
	}
	defer release()
	x := &receiving{r: r, l: l, hello: hello, tree: tree, model: manifest.New(), gone: map[manifest.Path]bool{}, skip: map[manifest.Path]bool{}, stays: map[manifest.Path]bool{}}
	stateFile := filepath.Join(r.treeDir(tree.Name), "pushed.json")
	if x.state, err = readState(stateFile); err != nil {
		return err
	}
	// What a cluster has committed is meant: its own guards have let it through.
	meant := hello.GetEpoch() > 0 && x.state.Cluster != "" && x.state.Cluster == hello.GetCluster()
	if err := x.state.admit(hello.GetCluster(), hello.GetIncarnation(), hello.GetRevision()); err != nil {
		return err
	}
	if err := patiently(ctx, patience, func() (err error) { x.t, err = r.open(tree, hello.GetFresh()); return err }, isBusy); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.t.Close()) }()
	if err := x.have(ctx, m); err != nil {
		return err
	}
	if err := x.takeWants(); err != nil {
		return err
	}
	if err := x.check(m); err != nil {
		return err
	}
	p := decide(state{
		disk: x.disk, wants: x.wants, gone: x.gone, policy: Policy(hello.GetDelete()),
		limit: r.cfg.Limit, recent: x.state.recent(time.Now()), rev: x.t.Revision(), meant: meant,
	})
	if hello.GetDryRun() {
		x.lines = p.dry()
		return x.sendReport()
	}
	if err := x.state.write(stateFile); err != nil { // before anything is done: a stale pusher is known from now on
		return err
	}
	if err := x.fetch(ctx, &p); err != nil {
		return err
	}
	deleted, err := x.apply(ctx, p)
	if deleted > 0 {
		x.state.Deletes = append(x.state.Deletes, deleted1(deleted))
		err = errors.Join(err, x.state.write(stateFile))
	}
	if err != nil {
		return err
	}
	if err := x.agree(ctx); err != nil {
		return err
	}
	x.tidy(ctx)
	return x.sendReport()
}

func deleted1(n int) deleted { return deleted{At: time.Now(), Count: n} }

// have surveys the tree and tells what stands there.
func (x *receiving) have(ctx context.Context, m *pb.PushTree) error {
	seen, last := uint64(0), time.Now()
	err := x.t.Survey(ctx, func(v syncer.Surveyed) error {
		if seen++; time.Since(last) > time.Second {
			last = time.Now()
			if err := x.l.send(frameProgress, &pb.PushProgress{Phase: "look", Done: seen}); err != nil {
				return err
			}
		}
		x.disk = append(x.disk, v)
		if v.Sight == syncer.Seen {
			x.model.Set(v.Path, manifest.Node{Entry: v.Entry})
			x.told = append(x.told, v.Path)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look at %s: %w", x.tree.Path, err)
	}
	root := x.model.RootDigest()
	if string(root[:]) == string(m.GetRootDigest()) {
		return x.l.send(frameHave, &pb.PushHave{Same: true, End: true})
	}
	var sums []byte
	for i, p := range x.told {
		s := sumOf(m.GetNonce(), p, x.model.Entry(p))
		for shift := 56; shift >= 0; shift -= 8 {
			sums = append(sums, byte(s>>shift))
		}
		if len(sums) >= pieceSize && i+1 < len(x.told) {
			if err := x.l.postMsg(frameHave, &pb.PushHave{Sums: sums}); err != nil {
				return err
			}
			sums = nil
		}
	}
	return x.l.send(frameHave, &pb.PushHave{Sums: sums, End: true})
}

// takeWants reads what is to stand there and does not.
func (x *receiving) takeWants() error {
	place := -1
	for {
		var m pb.PushWants
		if err := x.l.expect(frameWants, &m); err != nil {
			return err
		}
		for _, g := range m.GetGone() {
			if g > uint64(len(x.told)) {
				return fmt.Errorf("%w: an entry that was never told of", ErrProtocol)
			}
			if place += int(g); place < 0 || place >= len(x.told) {
				return fmt.Errorf("%w: an entry that was never told of", ErrProtocol)
			}
			x.gone[x.told[place]] = true
		}
		for _, pw := range m.GetWants() {
			w, err := x.takeWant(pw)
			if err != nil {
				return err
			}
			x.wants = append(x.wants, w)
		}
		for _, b := range m.GetSkip() {
			p, err := manifest.ParsePath(string(b))
			if err != nil || len(x.skip) >= maxEntries {
				return fmt.Errorf("%w: a path to leave alone: %w", ErrProtocol, err)
			}
			x.skip[p] = true
		}
		if m.GetEnd() {
			return nil
		}
	}
}

// skipped tells whether a path is to be left alone.
func (x *receiving) skipped(p manifest.Path) bool {
	for ; p != "" && len(x.skip) > 0; p = p.Dir() {
		if x.skip[p] {
			return true
		}
	}
	return false
}

// takeWant validates one entry from outside.
func (x *receiving) takeWant(m *pb.PushWant) (w want, err error) {
	if len(x.wants) >= maxEntries {
		return w, fmt.Errorf("%w: more than %d entries", ErrProtocol, maxEntries)
	}
	if w.path, err = manifest.ParsePath(string(m.GetPath())); err != nil {
		return w, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if n := len(x.wants); n > 0 && manifest.Compare(x.wants[n-1].path, w.path) >= 0 {
		return w, fmt.Errorf("%w: %q is not in path order", ErrProtocol, w.path)
	}
	if w.entry, err = proto.ToEntry(m.GetEntry()); err != nil {
		return w, fmt.Errorf("%w: %q: %w", ErrProtocol, w.path, err)
	}
	fit, err := x.t.Fit(w.path, w.entry)
	if err != nil {
		return w, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if fit.MTime = w.entry.MTime; w.entry.Absent() || !fit.Same(w.entry) {
		return w, fmt.Errorf("%w: %q: an entry that this tree does not take", ErrProtocol, w.path)
	}
	return w, nil
}

// check makes sure that both ends mean the same tree: the short sums may have
// been alike by chance.
func (x *receiving) check(m *pb.PushTree) error {
	want := x.model.Clone()
	for p := range x.gone {
		want.Delete(p)
	}
	for _, w := range x.wants {
		want.Set(w.path, manifest.Node{Entry: w.entry})
	}
	for p := range x.gone {
		if x.skipped(p) {
			delete(x.gone, p)
		}
	}
	if root := want.RootDigest(); string(root[:]) != string(m.GetRootDigest()) {
		return fmt.Errorf("%w: the trees were compared and their digests differ all the same: push again", ErrProtocol)
	}
	x.report.Unchanged = uint64(x.model.Len() - len(x.gone))
	for _, w := range x.wants {
		delete(x.gone, w.path) // it does not go, it changes
	}
	return nil
}

// apply swaps everything in and says how it went.
func (x *receiving) apply(ctx context.Context, p plan) (deleted int, err error) {
	x.lines = append(x.lines, p.lines...)
	steps := x.ready(ctx, p.steps)
	total, done, last := len(steps), 0, time.Now()
	for try := 0; len(steps) > 0; try++ {
		byPath := make(map[manifest.Path]syncer.Step, len(steps))
		for _, st := range steps {
			byPath[st.Path] = st
		}
		results, err := x.t.Apply(ctx, steps, func(n int) {
			if time.Since(last) > time.Second {
				last = time.Now()
				_ = x.l.send(frameProgress, &pb.PushProgress{Phase: "apply", Done: uint64(done + n), Total: uint64(total)})
			}
		})
		if err != nil {
			return deleted, err
		}
		var again []syncer.Step
		for _, res := range results {
			st := byPath[res.Path]
			switch {
			case res.Outcome == syncer.StepDone:
				done++
				if x.count(st) {
					deleted++
				}
			case x.stays[res.Path] && st.New.Entry.Absent():
				// A directory goes with what is in it.
			case res.Busy() && try < busyTries:
				again = append(again, st)
			case res.Outcome == syncer.StepLeft:
				x.stay(res.Path)
				x.line(Line{res.Path, WhatHeld, "the directory holds ignored files", 0})
			default:
				why := "not done"
				if res.Err != nil {
					why = res.Err.Error()
				}
				x.stay(res.Path)
				x.line(Line{res.Path, WhatFailed, why, st.New.Entry.Size})
			}
		}
		steps = x.lookAgain(ctx, again)
		if len(again) > 0 {
			select {
			case <-ctx.Done():
				return deleted, ctx.Err()
			case <-time.After(time.Duration(try+1) * 100 * time.Millisecond):
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, settleMost)
	defer cancel()
	x.t.Settle(ctx)
	return deleted, nil
}

// ready takes what is displaced into the blob store first, where no push has
// brought it.
func (x *receiving) ready(ctx context.Context, steps []syncer.Step) []syncer.Step {
	out := steps[:0]
	for _, st := range steps {
		if st.Aside == nil || st.Aside.Lost.Kind != manifest.File {
			out = append(out, st)
			continue
		}
		obs, err := x.t.Keep(ctx, st.Path)
		switch {
		case err != nil:
			x.line(Line{st.Path, WhatFailed, err.Error(), 0})
		case obs.Sight == syncer.Seen:
			out = append(out, syncer.NewStep(obs, st.New, st.Aside.Why))
		case obs.Sight == syncer.Gone:
			out = append(out, syncer.NewStep(obs, st.New, ""))
		default:
			x.line(Line{st.Path, WhatFailed, obs.Why, 0})
		}
	}
	return out
}

// stay notes that something was not removed: what is above it stays.
func (x *receiving) stay(p manifest.Path) {
	for dir := p.Dir(); dir != "" && !x.stays[dir]; dir = dir.Dir() {
		x.stays[dir] = true
	}
}

// lookAgain makes new steps of those that met something else than expected:
// what stands there now is an edit that nobody has seen.
func (x *receiving) lookAgain(ctx context.Context, again []syncer.Step) []syncer.Step {
	var out []syncer.Step
	for _, st := range again {
		obs, err := x.t.Keep(ctx, st.Path)
		if err != nil || obs.Sight == syncer.Unreadable || obs.Sight == syncer.Unfit {
			x.line(Line{st.Path, WhatFailed, obs.Why, 0})
			continue
		}
		if obs.Sight == syncer.Busy {
			out = append(out, st)
			continue
		}
		if obs.Sight == syncer.Gone && st.New.Entry.Absent() {
			continue
		}
		why := ""
		if st.Aside != nil {
			why = st.Aside.Why
		} else if !obs.Entry.Same(st.Expect.Entry) {
			why = whyEdited
		}
		out = append(out, syncer.NewStep(obs, st.New, why))
	}
	return out
}

// count counts a step that was done.
func (x *receiving) count(st syncer.Step) (deleted bool) {
	if st.Aside != nil {
		x.line(Line{st.Path, WhatKept, st.Aside.Why, st.Aside.Lost.Size})
	}
	switch word(st) {
	case WhatAdd:
		x.report.Added++
	case WhatChange:
		x.report.Changed++
	case WhatDelete:
		x.report.Deleted++
		return !st.Expect.Entry.IsDir()
	}
	return false
}

func (x *receiving) line(l Line) { x.lines = append(x.lines, l) }

// agree records what stood there as it should.
func (x *receiving) agree(ctx context.Context) error {
	changed := map[manifest.Path]bool{}
	for _, w := range x.wants {
		changed[w.path] = true
	}
	var updates []syncer.Update
	for _, v := range x.disk {
		switch {
		case changed[v.Path] || x.gone[v.Path]:
		case v.Sight == syncer.Gone && !v.Was.Entry.Absent():
			updates = append(updates, syncer.Update{Path: v.Path})
		case v.Sight == syncer.Seen && (!v.Entry.Same(v.Was.Entry) || v.Stamp != v.Was.Stamp):
			updates = append(updates, syncer.Update{
				Path: v.Path, Flush: true,
				Ancestor: &syncer.Ancestor{Entry: v.Entry, Revision: x.t.Revision(), Stamp: v.Stamp},
			})
		}
	}
	return x.t.Agree(ctx, updates)
}

// tidy lets go of content that is in place.
func (x *receiving) tidy(ctx context.Context) {
	live := map[manifest.Digest]struct{}{}
	if err := x.r.liveContent(x.tree.Name, x.t, live); err != nil {
		x.r.cfg.Log.Warn("cannot tell what is kept aside; nothing is tidied", "err", err)
		return
	}
	x.r.tidy(ctx, live)
}

// sendReport ends the tree.
func (x *receiving) sendReport() error {
	for i := 0; ; {
		m := &x.report
		size := 0
		m.Paths = nil
		for ; i < len(x.lines) && size < pieceSize; i++ {
			ln := x.lines[i]
			size += len(ln.Path) + len(ln.Why) + 32
			m.Paths = append(m.Paths, &pb.PushPath{Path: []byte(ln.Path), What: ln.What, Why: ln.Why, Size: ln.Size})
		}
		m.More = i < len(x.lines)
		if err := x.l.send(frameReport, m); err != nil || !m.More {
			return err
		}
	}
}
