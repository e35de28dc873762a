package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/transport"
)

// upheld is one target that this member pushes to, under one epoch and with one
// set of settings. run is its goroutine.
type upheld struct {
	u      *Upkeep
	target cluster.Target
	ctx    context.Context // of run
	cancel context.CancelFunc
	news   chan struct{}
	ended  chan struct{}

	done     manifest.Revision // that the target surely has
	verified time.Time
	failures int
	slow     bool // the last push took long

	mu sync.Mutex
	st KeptState
}

func newUpheld(ctx context.Context, u *Upkeep, t cluster.Target) *upheld {
	k := &upheld{u: u, target: t, news: make(chan struct{}, 1), ended: make(chan struct{})}
	k.ctx, k.cancel = context.WithCancel(ctx)
	k.st = KeptState{Name: t.Name, Epoch: t.Epoch, State: KeptWaiting, Since: time.Now()}
	return k
}

func (k *upheld) same(t cluster.Target) bool { return reflect.DeepEqual(k.target, t) }

func (k *upheld) over() bool {
	select {
	case <-k.ended:
		return true
	default:
		return false
	}
}

func (k *upheld) poke() {
	select {
	case k.news <- struct{}{}:
	default:
	}
}

func (k *upheld) state() KeptState {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.st
}

// say notes a state; change may set what else there is to it.
func (k *upheld) say(state string, change func(*KeptState)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.st.State != state {
		k.st.State, k.st.Since = state, time.Now()
	}
	if change != nil {
		change(&k.st)
	}
}

func (k *upheld) run() {
	defer close(k.ended)
	defer k.cancel()
	for k.ctx.Err() == nil {
		if !k.due() {
			select {
			case <-k.ctx.Done():
			case <-k.news:
			case <-time.After(verifyEvery/4 + rand.N(verifyEvery/4)):
			}
			continue
		}
		begun := time.Now()
		rev, err := k.push()
		if k.ctx.Err() != nil {
			return
		}
		took := time.Since(begun)
		k.slow = took > youngFor
		rest := min(max(took, restShortest), restLongest)
		if err != nil {
			rest = k.failed(err)
		} else {
			k.succeeded(rev)
		}
		select {
		case <-k.ctx.Done():
		case <-time.After(rest):
		}
	}
}

// trees lists what is pushed, as far as the cluster has it.
func (k *upheld) trees() []string {
	if len(k.target.Trees) > 0 {
		return k.target.Trees
	}
	var names []string
	for _, t := range k.u.cfg.Log.Trees() {
		names = append(names, t.Name)
	}
	return names
}

// due tells whether there may be something to push. Revisions of other trees are
// none of this target's business.
func (k *upheld) due() bool {
	if k.done == 0 || time.Since(k.verified) > verifyEvery {
		return true
	}
	now := k.u.cfg.Log.Revision()
	for _, name := range k.trees() {
		if commits, known := k.u.cfg.Log.Since(name, k.done); !known || len(commits) > 0 {
			return true
		}
	}
	if now > k.done {
		k.done = now
		k.say(KeptCurrent, func(s *KeptState) { s.Revision = now })
	}
	return false
}

func (k *upheld) succeeded(rev manifest.Revision) {
	if k.failures > 0 {
		k.u.cfg.Logger.Info("a target is reached again", "target", k.target.Name)
	}
	k.failures, k.done, k.verified = 0, rev, time.Now()
	k.say(KeptCurrent, func(s *KeptState) { s.Revision, s.Error, s.Failing = rev, "", time.Time{} })
}

// failed notes why, and tells how long to wait.
func (k *upheld) failed(err error) time.Duration {
	var part *partlyError
	var no *RefusedError
	state, failing := KeptUnreachable, true
	switch {
	case errors.As(err, &part):
		state, failing = KeptPartly, false
	case errors.As(err, &no):
		// Whose epoch is over there and not in the log needs another one: there was a
		// second name of that receiver, or a backup came back.
		state, failing = KeptRefused, no.Code == CodeStale
	}
	if k.failures++; k.failures == 1 {
		k.u.cfg.Logger.Warn("cannot push to a target", "target", k.target.Name, "address", k.target.Address, "err", err)
	}
	k.say(state, func(s *KeptState) {
		s.Error = brief(err.Error())
		if !failing {
			s.Failing = time.Time{}
		} else if s.Failing.IsZero() {
			s.Failing = time.Now()
		}
	})
	rest := retryLongest
	if k.failures < 8 {
		rest = min(rest, retryShortest<<(k.failures-1))
	}
	return rest*3/4 + rand.N(rest/2) // targets that went away together do not come back together
}

// errorMost bounds what is told to all members about a failure, in bytes.
const errorMost = 300

func brief(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if len(s) > errorMost {
		s = strings.ToValidUTF8(s[:errorMost], "") + "…"
	}
	return s
}

// partlyError: some paths could not be brought.
type partlyError struct {
	count int
	first Line
}

func (e *partlyError) Error() string {
	return fmt.Sprintf("%d paths could not be brought; the first: %s: %s", e.count, e.first.Path, e.first.Why)
}

var errStalled = fmt.Errorf("the target has made no progress for %s: look at its disk", stalledMost)

// push brings the target to what is committed now.
func (k *upheld) push() (manifest.Revision, error) {
	ctx, cancel := context.WithCancelCause(k.ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stalledMost, func() { cancel(errStalled) })
	defer stall.Stop()
	src, err := k.source()
	if err != nil {
		return 0, err
	}
	o := Options{
		Version: k.u.cfg.Version, Cluster: k.u.cfg.Cluster, Incarnation: k.u.cfg.Log.Incarnation().Number(), Epoch: k.target.Epoch,
		Revision: uint64(src.revision), Target: k.target.Name, Targets: k.u.names(), History: true, Trees: k.trees(), Delete: Policy(k.target.Delete), Limit: lower(k.target.Limit, k.u.cfg.Limit),
	}
	release := func() {}
	defer func() { release() }()
	o.Begin = func(ctx context.Context) error { // not before: who does not answer takes nobody's place
		k.say(k.state().State, func(s *KeptState) { s.Failing = time.Time{} })
		done, err := k.u.slots.take(ctx, k.failures > 0 || k.slow)
		if err == nil {
			release = done
		}
		return err
	}
	var moving atomic.Bool
	o.Progress = func(p Progress) {
		stall.Reset(stalledMost)
		if p.Phase != "look" && !moving.Swap(true) {
			k.say(KeptPushing, nil)
		}
	}
	conn, explain, err := k.dial(ctx, &o)
	if err != nil {
		return 0, err
	}
	done, err := Push(ctx, conn, src, o)
	if err = explain(err); err != nil {
		return 0, err
	}
	held, part := 0, partlyError{}
	for _, sum := range done {
		held += sum.Held()
		for _, ln := range sum.Lines {
			if ln.What == WhatFailed {
				if part.count++; part.count == 1 {
					part.first = ln
				}
			}
		}
	}
	k.say(k.state().State, func(s *KeptState) { s.Held = held })
	if part.count > 0 {
		return 0, &part
	}
	return src.revision, nil
}

// lower is the lower one of two limits, of which 0 is none.
func lower(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// dial opens a stream to the target; explain says more about what failed on it.
func (k *upheld) dial(ctx context.Context, o *Options) (conn io.ReadWriteCloser, explain func(error) error, err error) {
	explain = func(err error) error { return err }
	t := k.target
	over, isSSH, err := ParseSSH(t.Address)
	switch {
	case err != nil:
		return nil, nil, err
	case !isSSH:
		tok, err := transport.ParseToken(t.Token)
		if err != nil {
			return nil, nil, fmt.Errorf("the token of target %s: %w; give it anew: `gatesync targets add`", t.Name, err)
		}
		o.TokenID, o.Secret = tok.ID, tok.Secret
		conn, err = k.u.cfg.Dial(ctx, t.Address, tok)
		if errors.As(err, new(*transport.WrongTargetError)) {
			err = &RefusedError{Code: CodeToken, Message: err.Error()}
		}
		return conn, explain, err
	case len(t.Trees) != 1:
		return nil, nil, &RefusedError{Code: CodeTree, Message: "a target over ssh is one directory: name one tree with `gatesync targets add --tree`"}
	}
	tree, err := over.Tree(t.Trees[0], t.Preset, t.Ignore)
	if err != nil {
		return nil, nil, &RefusedError{Code: CodeTree, Message: err.Error()}
	}
	so := SSHOptions{Command: unattended(k.u.cfg.SSH), Binary: t.RemoteBinary, Tree: tree, DataDir: t.RemoteDataDir}
	if t.RemoteReserve != "" {
		so.Args = []string{"--free-reserve", t.RemoteReserve}
	}
	sc, err := over.Dial(ctx, so)
	if err != nil {
		return nil, nil, err
	}
	return sc, sc.Explain, nil
}

// unattended is an ssh command that asks nobody anything, and does not wait long
// for who does not answer. What the command itself says goes before.
func unattended(command []string) []string {
	if len(command) == 0 {
		command = []string{"ssh"}
	}
	return append(append([]string{}, command...),
		"-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
}
