package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/vfs"
)

const (
	// fenceEvery is how often a session looks whether a newer pusher has come.
	fenceEvery = 200 * time.Millisecond
	// claimMost is how long a cluster's pusher waits for an older one's session to
	// end, which a step in the middle may delay; fenceLockMost how long for the
	// moment in which somebody else writes the fence.
	claimMost     = 15 * time.Second
	claimEvery    = 50 * time.Millisecond
	fenceLockMost = 2 * time.Second
	// fencedMost bounds the clusters whose pushers are remembered.
	fencedMost = 64
)

// mark says which pusher of a cluster somebody is: of two, the one of the newer
// life is newer, then that of the greater epoch. Of one epoch there is one
// pusher: of its sessions the last one goes on.
type mark struct {
	Incarnation uint64 `json:"incarnation"`
	Epoch       uint64 `json:"epoch"`
	Session     string `json:"session"`
	Target      string `json:"target,omitempty"` // the cluster's name for this target
}

func (m mark) olderThan(n mark) bool {
	if m.Incarnation != n.Incarnation {
		return m.Incarnation < n.Incarnation
	}
	return m.Epoch < n.Epoch
}

// fence is what a target remembers of the pushers of a tree, by their cluster.
// It is kept apart from all else that is remembered, for it is written while
// somebody else's session is under way, in this process or another one: so an
// older one learns that it is to end.
type fence struct{ file string }

func (r *Receiver) fence(tree string) fence {
	return fence{filepath.Join(r.treeDir(tree), "fence.json")}
}

func (f fence) read() (map[string]mark, error) {
	marks := map[string]mark{}
	b, err := os.ReadFile(f.file)
	if errors.Is(err, fs.ErrNotExist) {
		return marks, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &marks)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w; remove it once no push is under way: it says which pushers are of the past", f.file, err)
	}
	return marks, nil
}

// raise lets a pusher of a cluster in, unless a newer one was here. From now on,
// also after a loss of power, no older one comes in, and one that is in ends.
func (f fence) raise(ctx context.Context, cluster string, m mark, names []string) error {
	if err := f.admits(cluster, m, names); err != nil {
		return err
	}
	lock, err := os.OpenFile(f.file+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // and with it the lock
	taken := func() error { return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
	err = patiently(ctx, fenceLockMost, taken, func(err error) bool { return errors.Is(err, unix.EWOULDBLOCK) })
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.file, err)
	}
	marks, err := f.read()
	if err != nil {
		return err
	}
	if err := judge(marks[cluster], m, names); err != nil {
		return err
	}
	if _, known := marks[cluster]; !known && len(marks) >= fencedMost {
		return refused(CodeFailed, "pushers of %d clusters are remembered in %s: remove it, once no push is under way", len(marks), f.file)
	}
	marks[cluster] = m
	b, err := json.Marshal(marks)
	if err != nil {
		return err
	}
	return vfs.ReplaceFile(f.file, append(b, '\n'), 0o600)
}

// admits tells whether a pusher would be let in.
func (f fence) admits(cluster string, m mark, names []string) error {
	marks, err := f.read()
	if err != nil {
		return err
	}
	return judge(marks[cluster], m, names)
}

// judge tells whether a pusher may follow the newest one that was here. names are
// the targets of its cluster: two of them for one tree would displace each other
// for ever.
func judge(newest, m mark, names []string) error {
	switch {
	case newest.Target != "" && m.Target != "" && newest.Target != m.Target && slices.Contains(names, newest.Target):
		return refused(CodeTwice, "the targets %q and %q are one and the same tree of one receiver, which is kept current as %q: take the other one out with `gatesync targets remove`",
			printable(newest.Target), printable(m.Target), printable(newest.Target))
	case m.olderThan(newest):
		return stale(newest, m)
	}
	return nil
}

// stands tells whether a pusher is still the newest of its cluster.
func (f fence) stands(cluster string, m mark) error {
	marks, err := f.read()
	if err != nil {
		return err
	}
	if newest := marks[cluster]; newest != m {
		return stale(newest, m)
	}
	return nil
}

func stale(newest, m mark) error {
	if newest.Incarnation == m.Incarnation && newest.Epoch == m.Epoch {
		return refused(CodeStale, "another session of this pusher (epoch %d) has begun: it goes on, this one has to stop", m.Epoch)
	}
	return refused(CodeStale, "a newer pusher of this cluster was here (epoch %d, this one has %d): it goes on, this one has to stop", newest.Epoch, m.Epoch)
}

// enter lets a cluster's pusher in, and guards its session. Of a dry run nothing is
// remembered, and it ends nobody's session.
func (f fence) enter(ctx context.Context, l *link, hello *pb.PushHello) (guarded context.Context, stop func(), err error) {
	m := mark{hello.GetIncarnation(), hello.GetEpoch(), newSession(), hello.GetTarget()}
	if hello.GetDryRun() {
		return ctx, func() {}, f.admits(hello.GetCluster(), m, hello.GetTargets())
	}
	if err := f.raise(ctx, hello.GetCluster(), m, hello.GetTargets()); err != nil {
		return nil, nil, err
	}
	guarded, stop = f.guard(ctx, l, hello.GetCluster(), m)
	return guarded, stop, nil
}

// guard watches the fence while a session works, until stop is called. Where a
// newer pusher has come it ends what the context is for, and the stream.
func (f fence) guard(ctx context.Context, l *link, cluster string, m mark) (guarded context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(fenceEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			var gone *RefusedError
			if err := f.stands(cluster, m); errors.As(err, &gone) {
				cancel(gone)
				l.evict(gone)
				return
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// patiently tries until it works, fails with something else than what passes, or
// most is over.
func patiently(ctx context.Context, most time.Duration, try func() error, passes func(error) bool) error {
	for end := time.Now().Add(most); ; {
		err := try()
		if err == nil || !passes(err) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(claimEvery):
		}
	}
}

// isBusy tells whether somebody else's session is what stands in the way.
func isBusy(err error) bool {
	var no *RefusedError
	return errors.As(err, &no) && no.Code == CodeBusy
}
