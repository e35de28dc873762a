package target

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// noiseMost is how much a login shell may say before the target does.
const noiseMost = 64 << 10

// Push brings the trees of src to the target at the other end of conn, which it
// closes. Each tree that was done has its summary, also beside an error.
func Push(ctx context.Context, conn io.ReadWriteCloser, src Source, o Options) (done []Summary, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	l := newLink(conn, o.Limit)
	defer l.close()
	defer context.AfterFunc(ctx, func() { l.abort(context.Cause(ctx)) })()
	if err := awaitMagic(l); err != nil {
		return nil, err
	}
	welcome, err := hello(l, o)
	if err != nil {
		return nil, err
	}
	pairs, err := match(o, welcome.GetTrees())
	if err != nil {
		return nil, err
	}
	if o.Begin != nil {
		if err := o.Begin(ctx); err != nil {
			return nil, err
		}
	}
	for _, p := range pairs {
		in, out := l.in.Load(), l.out.Load()
		x := &pushing{ctx: ctx, l: l, src: src, o: o, tree: p.from, to: p.to}
		sum, err := x.run()
		if err != nil {
			return done, err
		}
		sum.Sent, sum.Received = l.out.Load()-out, l.in.Load()-in
		done = append(done, sum)
	}
	if err := l.post(frameBye, nil); err == nil {
		_ = l.flush() // all is done: the target needs no farewell
	}
	return done, nil
}

// awaitMagic skips what comes before the target's first word.
func awaitMagic(l *link) error {
	var heard []byte
	for len(heard) < noiseMost {
		b, err := l.r.ReadByte()
		if err != nil {
			return &NoTargetError{Heard: printable(strings.ToValidUTF8(string(heard), "?")), Err: l.explain(err)}
		}
		heard = append(heard, b)
		if b == magic[len(magic)-1] && bytes.HasSuffix(heard, []byte(magic)) {
			return nil
		}
	}
	return &NoTargetError{Heard: printable(strings.ToValidUTF8(string(heard[:200]), "?")), Err: ErrProtocol}
}

// NoTargetError: no target answers at the other end.
type NoTargetError struct {
	Heard string // what was said instead
	Err   error
}

func (e *NoTargetError) Error() string {
	s := "no gatesync answers there: " + e.Err.Error()
	if e.Heard != "" {
		s += fmt.Sprintf("; it said %q", e.Heard)
	}
	return s
}

func (e *NoTargetError) Unwrap() error { return e.Err }

func hello(l *link, o Options) (*pb.PushWelcome, error) {
	err := l.send(frameHello, &pb.PushHello{
		Protocol: protocol, Version: o.Version, Token: o.TokenID, Secret: o.Secret,
		Cluster: o.Cluster, Incarnation: o.Incarnation, Epoch: o.Epoch, Revision: o.Revision, Target: o.Target, Targets: o.Targets,
		Delete: string(o.Delete), DryRun: o.DryRun, Fresh: o.Fresh, History: o.History,
	})
	var w pb.PushWelcome
	if rerr := l.expect(frameWelcome, &w); rerr != nil { // a refusal says more than a broken pipe
		return nil, rerr
	}
	if err != nil {
		return nil, err
	}
	if w.GetProtocol() != protocol {
		return nil, refused(CodeVersion, "the target is gatesync %s and speaks version %d of the push, this is gatesync %s and speaks version %d: install the same gatesync on both",
			printable(w.GetVersion()), w.GetProtocol(), o.Version, protocol)
	}
	return &w, nil
}

// pair is a tree of the source and where it goes.
type pair struct {
	from string
	to   *pb.PushTarget
}

// match finds out which tree goes where.
func match(o Options, trees []*pb.PushTarget) ([]pair, error) {
	var names []string
	byName := map[string]*pb.PushTarget{}
	for _, t := range trees {
		names = append(names, printable(t.GetName()))
		byName[t.GetName()] = t
	}
	has := strings.Join(names, ", ")
	if len(trees) == 0 {
		return nil, refused(CodeTree, "the target takes no tree: start it with --tree NAME=PATH")
	}
	if len(o.Trees) == 1 {
		to := byName[o.To]
		switch {
		case to == nil && o.To != "":
			return nil, refused(CodeTree, "the target has no tree %q: it has %s", o.To, has)
		case to == nil:
			if to = byName[o.Trees[0]]; to == nil && o.Trees[0] == "" && len(trees) == 1 {
				to = trees[0]
			}
		}
		if to == nil {
			return nil, refused(CodeTree, "the target has the trees %s: choose one with --tree", has)
		}
		return []pair{{o.Trees[0], to}}, nil
	}
	var out []pair
	for _, n := range o.Trees {
		if to := byName[n]; to != nil {
			out = append(out, pair{n, to})
		}
	}
	if len(out) == 0 {
		return nil, refused(CodeTree, "none of the trees %s is at the target, which has %s: choose with --tree", strings.Join(o.Trees, ", "), has)
	}
	return out, nil
}

// pushing is one tree of one session.
type pushing struct {
	ctx  context.Context
	l    *link
	src  Source
	o    Options
	tree string
	to   *pb.PushTarget

	want  *manifest.Manifest
	left  []Line // what the source cannot say anything about
	wants []want
	gone  []uint64 // places in the target's sums
	sum   Summary
}

func (x *pushing) run() (Summary, error) {
	x.sum.Tree = x.to.GetName()
	x.progress(Progress{Phase: "look"})
	if err := x.read(); err != nil {
		return x.sum, err
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails (crypto/rand)
	root := x.want.RootDigest()
	err := x.l.send(frameTree, &pb.PushTree{
		Name: x.to.GetName(), RootDigest: root[:], Nonce: nonce, Entries: uint64(x.want.Len()), Bytes: uint64(x.sum.Total),
	})
	if err != nil {
		return x.sum, err
	}
	if err := x.compare(nonce); err != nil {
		return x.sum, err
	}
	if err := x.sendWants(); err != nil {
		return x.sum, err
	}
	err = x.content()
	x.sum.Lines = append(x.sum.Lines, x.left...)
	slices.SortStableFunc(x.sum.Lines, func(a, b Line) int { return manifest.Compare(a.Path, b.Path) })
	return x.sum, err
}

func (x *pushing) progress(p Progress) {
	p.Tree, p.Wire = x.to.GetName(), x.l.out.Load()
	x.o.Progress(p)
}

// read reads the source and makes of it what the target would see: its ignored
// paths are nobody's business, and of modes it keeps what it keeps.
func (x *pushing) read() error {
	globs := make([]string, 0, len(x.to.GetIgnore()))
	for _, g := range x.to.GetIgnore() {
		globs = append(globs, string(g))
	}
	ignore, err := manifest.NewIgnore(x.to.GetPreset(), globs)
	if err != nil {
		return fmt.Errorf("what the target ignores: %w", err)
	}
	m, left, err := x.src.Tree(x.ctx, x.tree)
	if err != nil {
		return err
	}
	x.want = manifest.New()
	m.All(func(p manifest.Path, n manifest.Node) bool {
		e := n.Entry
		if ignore.Match(p, e.IsDir()) {
			return true
		}
		if e.Kind != manifest.Symlink {
			e.Mode &= x.to.GetModeMask() & 0o777
		}
		x.want.Set(p, manifest.Node{Entry: e})
		if e.HasContent() {
			x.sum.Total += e.Size
		}
		return true
	})
	for _, l := range left {
		if !ignore.Match(l.Path, false) && !ignore.Match(l.Path, true) {
			x.left = append(x.left, l)
		}
	}
	return nil
}

// compare reads what the target has.
func (x *pushing) compare(nonce []byte) error {
	paths := map[uint64]manifest.Path{}
	x.want.All(func(p manifest.Path, n manifest.Node) bool {
		paths[sumOf(nonce, p, n.Entry)] = p
		return true
	})
	has := map[manifest.Path]bool{}
	place, before := uint64(0), uint64(0)
	for {
		kind, payload, err := x.l.next()
		if err != nil {
			return err
		}
		if kind == frameProgress {
			var m pb.PushProgress
			if err := parse(payload, &m); err != nil {
				return err
			}
			x.progress(Progress{Phase: "look", Done: int64(m.GetDone())})
			continue
		}
		if err := refusal(kind, payload); err != nil {
			return err
		}
		var m pb.PushHave
		if kind != frameHave {
			return fmt.Errorf("%w: a frame of kind %d where a list was expected", ErrProtocol, kind)
		}
		if err := parse(payload, &m); err != nil {
			return err
		}
		if m.GetSame() {
			return nil
		}
		for sums := m.GetSums(); len(sums) >= sumSize; sums = sums[sumSize:] {
			var s uint64
			for _, b := range sums[:sumSize] {
				s = s<<8 | uint64(b)
			}
			if p, ok := paths[s]; ok {
				has[p] = true
			} else {
				x.gone = append(x.gone, place+1-before)
				before = place + 1
			}
			place++
		}
		if !m.GetEnd() {
			continue
		}
		x.want.All(func(p manifest.Path, n manifest.Node) bool {
			if !has[p] {
				x.wants = append(x.wants, want{p, n.Entry})
			}
			return true
		})
		return nil
	}
}

// sendWants tells what differs.
func (x *pushing) sendWants() error {
	m, size := &pb.PushWants{}, 0
	piece := func() error {
		if size < pieceSize {
			return nil
		}
		err := x.l.postMsg(frameWants, m)
		m, size = &pb.PushWants{}, 0
		return err
	}
	for _, g := range x.gone {
		m.Gone = append(m.Gone, g)
		size += 4
		if err := piece(); err != nil {
			return err
		}
	}
	for _, l := range x.left {
		if l.Path.Unfit() != "" {
			continue // no target has it, either
		}
		m.Skip = append(m.Skip, []byte(l.Path))
		size += len(l.Path) + 4
		if err := piece(); err != nil {
			return err
		}
	}
	for _, w := range x.wants {
		m.Wants = append(m.Wants, &pb.PushWant{Path: []byte(w.path), Entry: proto.FromEntry(w.entry)})
		size += len(w.path) + 80
		if err := piece(); err != nil {
			return err
		}
	}
	m.End = true
	return x.l.send(frameWants, m)
}

// takeReport adds a report; more follow.
func (x *pushing) takeReport(m *pb.PushReport) (more bool, err error) {
	x.sum.Added, x.sum.Changed, x.sum.Deleted = m.GetAdded(), m.GetChanged(), m.GetDeleted()
	x.sum.Unchanged, x.sum.Resumed = m.GetUnchanged(), int64(m.GetResumed())
	for _, p := range m.GetPaths() {
		path, err := manifest.ParsePath(string(p.GetPath()))
		if err != nil {
			return false, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		x.sum.Lines = append(x.sum.Lines, Line{path, printable(p.GetWhat()), printable(p.GetWhy()), p.GetSize()})
	}
	return m.GetMore(), nil
}

// errReported: the report has come, there is nothing more to send.
var errReported = errors.New("reported")
