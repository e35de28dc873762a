package syncer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

const (
	smallLookers = 4
	bigLookers   = 1
	// lookChunk is how many paths a looker takes at once; the root is verified
	// before and after.
	lookChunk = 32
	// fewLooks: a Look of so few paths goes before those of a big scan.
	fewLooks = 16
	// racyWindow: content that was read so soon after its inode changed may be
	// written again without stat telling.
	racyWindow = 20 * time.Millisecond
	// quietPeriod is how long a file has to rest where leases do not work.
	quietPeriod = time.Second
	// restFor is for how long a resting file is remembered that nobody looked at
	// again: a look may have to wait for those at all the others.
	restFor    = 10 * time.Minute
	sweepFirst = 4096
)

// writerGrace are the pauses after which a refused lease is asked for again:
// the event of a close comes a moment before the kernel has let go.
func writerGrace() []time.Duration {
	return []time.Duration{100 * time.Microsecond, 300 * time.Microsecond, time.Millisecond}
}

// lookers is the pool that answers Look. Large files have a looker of their
// own, so that nobody waits behind one.
type lookers struct {
	s *Syncer

	mu    sync.Mutex
	few   []LookAt
	many  []LookAt
	big   []LookAt
	inUse int
	small chan struct{} // tokens: something is in few or many
	large chan struct{}

	restMu sync.Mutex
	rest   map[manifest.Path]resting
	sweep  int // size of rest at which those are dropped that nobody looks at any more
}

// resting is a file that was seen where leases do not work: it is read once it
// has not changed for quietPeriod.
type resting struct {
	stamp Stamp
	since time.Time
	asked time.Time // last
}

func newLookers(s *Syncer) *lookers {
	return &lookers{
		s: s, rest: map[manifest.Path]resting{}, sweep: sweepFirst,
		small: make(chan struct{}, smallLookers), large: make(chan struct{}, bigLookers),
	}
}

func (l *lookers) add(paths []LookAt) {
	l.mu.Lock()
	if len(paths) <= fewLooks {
		l.few = append(l.few, paths...)
	} else {
		l.many = append(l.many, paths...)
	}
	l.mu.Unlock()
	for range min(smallLookers, (len(paths)+lookChunk-1)/lookChunk) {
		token(l.small)
	}
}

func token(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // enough are awake
	}
}

// take returns the next paths to look at.
func (l *lookers) take(big bool) []LookAt {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := &l.few
	switch {
	case big:
		from = &l.big
	case len(l.few) == 0:
		from = &l.many
	}
	n := min(len(*from), lookChunk)
	if big {
		n = min(n, 1)
	}
	out := (*from)[:n]
	*from = (*from)[n:]
	if len(*from) == 0 {
		*from = nil
	}
	l.inUse += n
	return out
}

// toBig hands a path over to the looker of large files.
func (l *lookers) toBig(at LookAt) {
	l.mu.Lock()
	l.big = append(l.big, at)
	l.mu.Unlock()
	token(l.large)
}

func (l *lookers) finished(n int) {
	l.mu.Lock()
	l.inUse -= n
	l.mu.Unlock()
}

// run runs the pool until ctx ends.
func (l *lookers) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range smallLookers {
		wg.Go(func() { l.work(ctx, l.small, false) })
	}
	for range bigLookers {
		wg.Go(func() { l.work(ctx, l.large, true) })
	}
}

func (l *lookers) work(ctx context.Context, tokens <-chan struct{}, big bool) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tokens:
		}
		for ctx.Err() == nil {
			paths := l.take(big)
			if len(paths) == 0 {
				break
			}
			l.chunk(ctx, paths, big)
			l.finished(len(paths))
		}
	}
}

// chunk looks at some paths and posts what it saw. What was seen while the
// root was lost means nothing.
func (l *lookers) chunk(ctx context.Context, paths []LookAt, big bool) {
	var out []Observation
	find := l.s.root.finding()
	g, done, err := l.s.root.borrow()
	if err == nil {
		defer done()
		err = l.s.root.verify(g)
	}
	if err == nil {
		for _, at := range paths {
			obs, later := l.s.look(ctx, g.fs, at, big, l.s.cfg.Blobs)
			if later {
				l.toBig(at)
				continue
			}
			out = append(out, obs)
		}
		err = l.s.root.verify(g)
	}
	if err != nil {
		out = out[:0]
		for _, at := range paths {
			out = append(out, Observation{Path: at.Path, Sight: Busy, Why: err.Error()})
		}
	}
	if ctx.Err() == nil && len(out) > 0 {
		l.s.inbox.post(Looked{Observations: out, find: find})
	}
}

// look finds out what stands at a path; what has to be read goes into a store.
// later: it is a large file, and this looker is not for those.
func (s *Syncer) look(ctx context.Context, root vfs.FS, at LookAt, big bool, into PutContent) (obs Observation, later bool) {
	if s.onMount() {
		return s.lookShared(ctx, root, at, big, into)
	}
	return s.lookAt(ctx, root, at, big, into)
}

func (s *Syncer) lookAt(ctx context.Context, root vfs.FS, at LookAt, big bool, into PutContent) (obs Observation, later bool) {
	obs.Path = at.Path
	if why := at.Path.Unfit(); why != "" {
		return lookUnfit(root, obs, why), false
	}
	st, err := root.Lstat(at.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		obs.Sight = Gone
		return obs, false
	case err != nil:
		return unreadable(obs, err), false
	}
	obs.Sight, obs.Stamp = Seen, stampOf(st)
	obs.Entry = manifest.Entry{Kind: st.Kind, Mode: s.modeOf(st, at.Was.Entry)}
	switch st.Kind {
	case manifest.Dir:
		// The times of a directory change with what is made in it.
		obs.Stamp = Stamp{Ino: st.Ino}
	case manifest.Symlink:
		obs = lookLink(root, obs)
	case manifest.File:
		if s.unchanged(st, at.Was) {
			obs.Entry = at.Was.Entry
			return obs, false
		}
		if !big && st.Size >= bigFile {
			return obs, true
		}
		obs = s.lookFile(ctx, root, obs, at.Was.Entry, into)
		if obs.Sight == Unreadable && st.Mode&0o400 == 0 && s.unchangedBut(st, at.Was) {
			// Nobody but us made it so that we cannot read it: a mode of another
			// node's, and the times tell of nothing since.
			obs.Sight, obs.Entry, obs.Stamp, obs.Why = Seen, at.Was.Entry, at.Was.Stamp, ""
		}
	default:
		obs.Sight, obs.Why = Unfit, "is a device, a FIFO or a socket"
	}
	return obs, false
}

// lookUnfit finds out whether something stands where no tree can hold it: its
// path is too long. Nothing takes such a path, but for the listing of its directory.
func lookUnfit(root vfs.FS, obs Observation, why string) Observation {
	names, err := root.ReadDir(obs.Path.Dir())
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, vfs.ErrNotDir):
		obs.Sight = Gone
	case err != nil:
		return unreadable(obs, err)
	case !slices.ContainsFunc(names, func(e vfs.Entry) bool { return e.Name == obs.Path.Base() }):
		obs.Sight = Gone
	default:
		obs.Sight, obs.Why = Unfit, why
	}
	return obs
}

func unreadable(obs Observation, err error) Observation {
	return Observation{Path: obs.Path, Sight: Unreadable, Why: err.Error()}
}

func busy(obs Observation, why string) Observation {
	return Observation{Path: obs.Path, Sight: Busy, Why: why}
}

// lookLink reads a symlink. Only what stays inside the tree is replicated.
func lookLink(root vfs.FS, obs Observation) Observation {
	target, err := root.Readlink(obs.Path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, vfs.ErrNotSymlink) {
		return busy(obs, "changed while it was looked at")
	}
	if err != nil {
		return unreadable(obs, err)
	}
	obs.Entry.Target, obs.Entry.Size = target, int64(len(target))
	obs.Entry.Digest = manifest.DigestOf([]byte(target))
	if err := manifest.CheckLink(obs.Path, target); err != nil {
		obs.Sight, obs.Why = Unfit, err.Error()
	}
	return obs
}

// errOvertaken: the file changed while it was read.
var errOvertaken = errors.New("changed while it was read")

// lookFile takes a file's content into the blob store in one pass, and makes
// sure that nobody wrote meanwhile.
func (s *Syncer) lookFile(ctx context.Context, root vfs.FS, obs Observation, was manifest.Entry, into PutContent) Observation {
	f, err := s.openFile(root, obs.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, vfs.ErrNotRegular):
		return busy(obs, "changed while it was looked at")
	case errors.Is(err, vfs.ErrWriter):
		return busy(obs, "somebody is writing it")
	case err != nil:
		return unreadable(obs, err)
	}
	defer f.Close()
	ref, st, err := s.capture(ctx, f, obs.Path, into)
	switch {
	case errors.Is(err, vfs.ErrWriter):
		return busy(obs, "somebody is writing it")
	case errors.Is(err, errOvertaken):
		return busy(obs, err.Error())
	case errors.Is(err, errRestless):
		restless := (*restlessError)(nil)
		errors.As(err, &restless)
		obs = busy(obs, err.Error())
		obs.Rest = restless.left
		return obs
	case err != nil:
		return unreadable(obs, err)
	}
	if now, err := root.Lstat(obs.Path); err != nil || now.Ino != st.Ino {
		return busy(obs, "was replaced while it was looked at")
	}
	obs.Entry.Mode = s.modeOf(st, was)
	obs.Stamp = stampOf(st)
	obs.Stamp.Racy = s.racy(st)
	obs.Entry.Size, obs.Entry.Digest, obs.Entry.MTime = ref.Size, ref.Digest, st.MTime
	return obs
}

// openFile opens a file to be read, past the caches where others write it too.
func (s *Syncer) openFile(root vfs.FS, p manifest.Path) (vfs.File, error) {
	if s.onMount() {
		return root.OpenFresh(p)
	}
	return root.Open(p)
}

func (s *Syncer) racy(st vfs.Stat) bool {
	return s.cfg.Now().UnixNano()-st.CTime < int64(racyWindow)
}

// PutContent takes content in and names it. *blob.Store keeps it; Digester
// only computes.
type PutContent interface {
	Put(r io.Reader) (manifest.BlobRef, error)
}

// Digester is a PutContent that keeps nothing.
type Digester struct{}

// Put reads all of r.
func (Digester) Put(r io.Reader) (manifest.BlobRef, error) {
	h := manifest.NewHasher()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, make([]byte, 128<<10))
	return manifest.BlobRef{Digest: h.Digest(), Size: n}, err
}

// capture reads an open file into a store under a read lease: what it returns
// was the file's whole content while nobody had it open for writing. Without
// leases the file has to have rested for a while; p names it for that.
func (s *Syncer) capture(ctx context.Context, f vfs.File, p manifest.Path, into PutContent) (ref manifest.BlobRef, st vfs.Stat, err error) {
	lease, err := s.lease(ctx, f)
	leased := err == nil
	if err != nil && !errors.Is(err, vfs.ErrNoLease) {
		return ref, st, err
	}
	if leased {
		defer lease.Release()
	}
	if st, err = f.Stat(); err != nil {
		return ref, st, err
	}
	if !leased {
		if err := s.lookers.rested(p, stampOf(st), s.cfg.Now()); err != nil {
			return ref, st, err
		}
	}
	r := &watchedReader{ctx: ctx, f: f, left: st.Size}
	if leased {
		r.lease = lease
	}
	ref, err = into.Put(r)
	if r.err != nil {
		return ref, st, r.err // of the file, not of the store
	}
	if err != nil {
		return ref, st, err
	}
	after, err := f.Stat()
	if err != nil {
		return ref, st, err
	}
	if stampOf(after) != stampOf(st) || after.Mode != st.Mode || ref.Size != st.Size {
		return ref, st, errOvertaken
	}
	if leased && !lease.Release() {
		return ref, st, errOvertaken
	}
	return ref, st, nil
}

// lease takes a read lease, with a little patience: the event of a close comes
// a moment before the kernel has let go of the writer.
func (s *Syncer) lease(ctx context.Context, f vfs.File) (vfs.Lease, error) {
	l, err := f.Lease()
	for _, d := range writerGrace() {
		if !errors.Is(err, vfs.ErrWriter) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(d):
		}
		l, err = f.Lease()
	}
	return l, err
}

// watchedReader reads a file as long as nobody else wants to write it and ctx
// has not ended.
type watchedReader struct {
	ctx   context.Context
	f     vfs.File
	lease vfs.Lease // nil where leases do not work
	left  int64     // what the file had when it was opened; more is not read
	read  int64
	err   error // why the file could not be read
}

const leaseCheck = 1 << 20

func (r *watchedReader) Read(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if err := r.ctx.Err(); err != nil {
		r.err = err
		return 0, err
	}
	if r.lease != nil && r.read >= leaseCheck {
		r.read = 0
		if !r.lease.Intact() {
			r.err = errOvertaken
			return 0, r.err
		}
	}
	if r.left <= 0 {
		return 0, io.EOF
	}
	n, err := r.f.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	r.read += int64(n)
	if errors.Is(err, io.EOF) {
		r.err = errOvertaken // it became shorter
		return n, r.err
	}
	if err != nil {
		r.err = err
	}
	return n, err
}

// restlessError: leases do not work, and the file has not rested long enough.
type restlessError struct{ left time.Duration }

func (e *restlessError) Error() string {
	return fmt.Sprintf("waiting for a quiet second, because leases do not work here (%s left)", e.left.Round(time.Millisecond))
}

func (e *restlessError) Is(target error) bool { return target == errRestless }

// errRestless is any *restlessError.
var errRestless = errors.New("waiting for a quiet second")

// rested tells whether a file has not changed since an earlier look, a quiet
// period ago. The clocks of a file server play no part in it.
func (l *lookers) rested(p manifest.Path, stamp Stamp, now time.Time) error {
	l.restMu.Lock()
	defer l.restMu.Unlock()
	if r, ok := l.rest[p]; ok && r.stamp == stamp {
		left := quietPeriod - now.Sub(r.since)
		if left <= 0 {
			delete(l.rest, p)
			return nil
		}
		r.asked = now
		l.rest[p] = r
		return &restlessError{left}
	}
	if len(l.rest) >= l.sweep {
		maps.DeleteFunc(l.rest, func(_ manifest.Path, r resting) bool { return now.Sub(r.asked) > restFor })
		l.sweep = max(sweepFirst, 2*len(l.rest))
	}
	l.rest[p] = resting{stamp: stamp, since: now, asked: now}
	return &restlessError{quietPeriod}
}
