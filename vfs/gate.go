package vfs

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"
)

// How long a call into a mount may take before it counts as hung.
const (
	gatePatience = 5 * time.Second // for most
	gateLong     = time.Minute     // for what may honestly take long: flushes, listings
	gateHurry    = time.Second     // for all, once the program is about to end
)

// ErrHung: the mount does not answer.
var ErrHung = errors.New("the mount does not answer")

// HungError tells which call has got no answer.
type HungError struct {
	Path  string // whose gate it is
	Op    string // the call that hangs
	Since time.Time
}

func (e *HungError) Error() string {
	return fmt.Sprintf("%s: %v since %s (%s): its file server or the network is down; it is taken up again by itself, or mount it anew",
		e.Path, ErrHung, e.Since.UTC().Format(time.TimeOnly+" MST"), e.Op)
}

// Is makes it an ErrHung.
func (e *HungError) Is(target error) bool { return target == ErrHung }

// Gate is the only way to one path on a mount that may hang. A call goes
// through it on a goroutine of its own, and whoever called waits only so long:
// then it is told that the mount hangs, and the call is left behind. While one
// is stuck the gate stays shut: it answers at once that it still hangs, and
// starts nothing. So there are never more stuck calls than there were callers
// when the mount began to hang, however long it does and however often they
// try. The gate opens when the last stuck call has come back, or when another
// mount stands at the path (the old one was unmounted under the stuck calls).
//
// What was left behind may still happen, much later: its outcome is unknown,
// as after a crash.
//
// A nil *Gate lets every call through on the caller's own goroutine. Safe for
// concurrent use; no lock is held while a call is under way.
type Gate struct {
	path     string
	mountOf  func(string) (Mount, error)
	patience time.Duration
	long     time.Duration
	hurried  chan struct{}
	before   func(op, path string) error // see Before

	mu    sync.Mutex
	real  string // path without symlinks, once it is known
	mount int    // id of the mount, as of the last look; 0: unknown
	stuck map[*passage]struct{}
	owed  []func() error // closings that were refused, for when the gate opens
	ended bool
}

// passage is one call under way.
type passage struct {
	op    string
	begun time.Time
	mount int  // that it went into, as far as was known
	back  bool // it has ended
	left  bool // nobody waits for it any more
}

// NewGate makes the gate of a path. Nothing is asked of the filesystem.
func NewGate(path string) *Gate {
	g := &Gate{path: path, real: path, mountOf: MountOf, patience: gatePatience, long: gateLong,
		hurried: make(chan struct{}), stuck: map[*passage]struct{}{}}
	g.mount = g.mountID()
	return g
}

// WithPatience shortens the waits of a gate that nobody uses yet.
func (g *Gate) WithPatience(most, long time.Duration) *Gate {
	g.patience, g.long = most, long
	return g
}

// Before has fn asked at the beginning of each call, on the goroutine of the
// call: it may hang, or fail in the call's place. Tests give an injector's Op;
// nobody may use the gate yet.
func (g *Gate) Before(fn func(op, path string) error) { g.before = fn }

// Mount tells on which mount the path lies, without touching it.
func (g *Gate) Mount() (Mount, error) {
	g.mu.Lock()
	real := g.real
	g.mu.Unlock()
	return g.mountOf(real)
}

// Resolve follows the symlinks of the path, through the gate: from then on
// Mount tells of where they lead.
func (g *Gate) Resolve() error {
	real, err := Pass(g, "resolve", func() (string, error) { return filepath.EvalSymlinks(g.path) }, nil)
	if err != nil {
		return err
	}
	m, err := g.mountOf(real)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.real, g.mount = real, m.ID
	return nil
}

// Real is where the path leads, as of the last Resolve.
func (g *Gate) Real() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.real
}

// Hurry says that the program is about to end: calls under way have a second
// more. Calling it again is well.
func (g *Gate) Hurry() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.ended {
		g.ended = true
		close(g.hurried)
	}
}

// Hung returns a *HungError while calls are stuck, the oldest of them.
func (g *Gate) Hung() error {
	if g == nil {
		return nil
	}
	return g.hungIn(g.at())
}

// hungIn is Hung for one mount.
func (g *Gate) hungIn(mount int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var oldest *passage
	for p := range g.stuck {
		if p.mount == mount && (oldest == nil || p.begun.Before(oldest.begun)) {
			oldest = p
		}
	}
	if oldest == nil {
		return nil
	}
	return &HungError{Path: g.path, Op: oldest.op, Since: oldest.begun}
}

// Stuck counts the calls that were left behind and have not come back.
func (g *Gate) Stuck() int {
	if g == nil {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.stuck)
}

func (g *Gate) mountID() int {
	m, err := g.Mount()
	if err != nil {
		return 0
	}
	return m.ID
}

// Do is Pass for a call that returns nothing but an error.
func (g *Gate) Do(op string, fn func() error) error {
	_, err := Pass(g, op, func() (struct{}, error) { return struct{}{}, fn() }, nil)
	return err
}

// Long is Do for what may honestly take long.
func (g *Gate) Long(op string, fn func() error) error {
	_, err := PassLong(g, op, func() (struct{}, error) { return struct{}{}, fn() }, nil)
	return err
}

// Close is Do for what has to be done in the end, however long it takes: a
// closing that finds the gate shut, and is told so, is made up for when it
// opens. Else descriptors would be lost, or be closed by the runtime, which
// must not hang.
func (g *Gate) Close(op string, fn func() error) error {
	if g == nil {
		return fn()
	}
	return g.closeIn(g.at(), op, fn)
}

func (g *Gate) closeIn(mount int, op string, fn func() error) error {
	if err := g.hungIn(mount); err != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.stuck) > 0 {
			g.owed = append(g.owed, fn)
			return err
		}
	}
	_, err := pass(g, mount, op, g.long, func() (struct{}, error) { return struct{}{}, fn() }, nil)
	return err
}

// at is the mount that stands at the path, and where calls go; it is looked up
// while something is stuck, else it is the one of the last look.
func (g *Gate) at() int {
	g.mu.Lock()
	mount, none := g.mount, len(g.stuck) == 0
	g.mu.Unlock()
	if none {
		return mount
	}
	mount = g.mountID()
	g.mu.Lock()
	g.mount = mount
	g.mu.Unlock()
	return mount
}

// Pass makes a call through a gate. fn may outlive the call of Pass: it must
// not touch what its caller uses afterwards. What it brings too late is handed
// to late, which may be nil, on fn's own goroutine.
func Pass[T any](g *Gate, op string, fn func() (T, error), late func(T)) (T, error) {
	if g == nil {
		return fn()
	}
	return pass(g, g.at(), op, g.patience, fn, late)
}

// PassLong is Pass for what may honestly take long.
func PassLong[T any](g *Gate, op string, fn func() (T, error), late func(T)) (T, error) {
	if g == nil {
		return fn()
	}
	return pass(g, g.at(), op, g.long, fn, late)
}

type result[T any] struct {
	value T
	err   error
}

// pass makes a call into one mount: what is stuck in another does not matter.
func pass[T any](g *Gate, mount int, op string, patience time.Duration, fn func() (T, error), late func(T)) (T, error) {
	var none T
	if err := g.hungIn(mount); err != nil {
		return none, err
	}
	p := &passage{op: op, begun: time.Now(), mount: mount}
	done := make(chan result[T], 1)
	go func() { // ends with fn; where that hangs in the kernel nobody can end it
		var v T
		err := g.ask(op)
		if err == nil {
			v, err = fn()
		}
		wanted, owed := g.came(p)
		if wanted {
			done <- result[T]{v, err}
		} else if late != nil && err == nil {
			late(v)
		}
		for _, fn := range owed {
			_ = g.Close("close", fn) // nobody is left to be told
		}
	}()
	until := p.begun.Add(patience)
	timer := time.NewTimer(min(patience, g.patience))
	defer timer.Stop()
	hurried := g.hurried
	for {
		select {
		case r := <-done:
			return r.value, r.err
		case <-hurried:
			hurried = nil
			if soon := time.Now().Add(gateHurry); soon.Before(until) {
				until = soon
			}
			timer.Reset(time.Until(until))
		case <-timer.C:
			if left := time.Until(until); left > 0 && !g.replaced(mount) {
				timer.Reset(min(left, g.patience))
				continue
			}
			err := g.leave(p)
			if err == nil { // it came in this very moment
				r := <-done
				return r.value, r.err
			}
			return none, err
		}
	}
}

// replaced tells whether another mount stands at the path by now: whoever waits for
// long for the old one is to try that.
func (g *Gate) replaced(mount int) bool {
	now := g.mountID()
	return mount != 0 && now != 0 && now != mount
}

func (g *Gate) ask(op string) error {
	if g.before == nil {
		return nil
	}
	return g.before(op, g.path)
}

// came notes that a call has come back, and tells whether somebody waits for
// it, and what is to be made up for now that nothing is stuck.
func (g *Gate) came(p *passage) (wanted bool, owed []func() error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p.back = true
	delete(g.stuck, p)
	if len(g.stuck) == 0 {
		owed, g.owed = g.owed, nil
	}
	return !p.left, owed
}

// leave gives a call up, unless it has come back.
func (g *Gate) leave(p *passage) error {
	now := g.mountID()
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.back {
		return nil
	}
	p.left, g.mount = true, now
	g.stuck[p] = struct{}{}
	return &HungError{Path: g.path, Op: p.op, Since: p.begun}
}
