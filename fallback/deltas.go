package fallback

import (
	linked "container/list"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/gatesync/gatesync/delta"
	"github.com/gatesync/gatesync/manifest"
)

// The forms of a delta on the wire (Piece.form).
const (
	formWhole      uint32 = iota // no delta
	formDictionary               // zstd with the base as its dictionary, of small content
	formCopies                   // package delta's EncodeOver
)

const (
	deltaLeast = 512      // smaller content travels whole
	deltaMost  = 64 << 20 // of one delta: content that differs by more travels whole, which can be resumed
	kinMost    = 8        // content that is so many times the base, or a fraction, is not made of it

	madeMemory = 16 << 20        // deltas that are kept for others who need the same
	madeDisk   = 256 << 20       // and those that lie in files
	madeFor    = 1 * time.Minute // after the last use
	madeEntry  = 512             // what an entry costs beside its delta
	makers     = 2               // large deltas that are made, or used, at a time
)

// formOf is the form of a delta between two sizes; formWhole where there is none.
func formOf(size, base int64) uint32 {
	switch {
	case size < deltaLeast || base < 8 || base/kinMost > size || size/kinMost > base:
		return formWhole
	case size <= delta.SmallLimit && base <= delta.DictLimit:
		return formDictionary
	}
	return formCopies
}

// worthIt is how long a delta may be that travels instead of content.
func worthIt(size int64) int64 { return min(deltaMost, size-size/4) }

// kin is content and what it replaces.
type kin struct{ digest, base manifest.Digest }

// deltas makes deltas and keeps them for a while: an author's peers and a
// parent's children need the same. Safe for concurrent use.
type deltas struct {
	codec *delta.Codec
	store Store
	dir   string
	slots chan struct{} // makers of them

	mu     sync.Mutex
	made   map[kin]*made
	recent *linked.List // of *made, the latest used last
	memory int64
	disk   int64
	most   struct{ memory, disk int64 }
	expire *time.Timer
	holds  int // Spreads that will send what they had made; it may take its turn late
	closed bool
}

// made is one delta, or that there is none.
type made struct {
	kin   kin
	at    *linked.Element // guarded by deltas.mu
	done  chan struct{}
	form  uint32
	data  *spool // once done; nil: the content travels whole
	users int    // guarded by deltas.mu
	gone  bool   // not kept any more; guarded by deltas.mu
}

func newDeltas(store Store) *deltas {
	d := &deltas{codec: delta.NewCodec(), store: store, slots: make(chan struct{}, makers), made: map[kin]*made{}, recent: linked.New()}
	d.most.memory, d.most.disk = madeMemory, madeDisk
	return d
}

// likely tells whether a delta of content against a base may be made here. It
// reads nothing.
func (d *deltas) likely(ref manifest.BlobRef, base manifest.Digest) bool {
	if base.IsZero() || base == ref.Digest {
		return false
	}
	size, ok := d.store.Size(base)
	return ok && formOf(ref.Size, size) != formWhole
}

// slow tells whether a delta takes time to be made.
func (d *deltas) slow(ref manifest.BlobRef, base manifest.Digest) bool {
	if !d.likely(ref, base) {
		return false
	}
	size, ok := d.store.Size(base)
	return ok && formOf(ref.Size, size) == formCopies
}

// get returns the delta of content, and makes it if need be; nil where the
// content is to travel whole. Who gets one lets go of it by release.
func (d *deltas) get(ctx context.Context, ref manifest.BlobRef, base manifest.Digest) *made {
	if !d.likely(ref, base) {
		return nil
	}
	k := kin{ref.Digest, base}
	for ctx.Err() == nil {
		m, mine := d.begin(k)
		if m == nil {
			return nil
		}
		if mine {
			err := d.make(ctx, m, ref, base)
			d.finish(m, err)
		}
		select {
		case <-m.done:
		case <-ctx.Done():
			d.release(m)
			return nil
		}
		if m.data != nil {
			return m
		}
		again := m.form == formWhole // who made it gave up
		d.release(m)
		if !again || mine {
			return nil
		}
	}
	return nil
}

// find is get for what was made already, or takes no time.
func (d *deltas) find(ctx context.Context, ref manifest.BlobRef, base manifest.Digest) *made {
	if !d.slow(ref, base) {
		return d.get(ctx, ref, base)
	}
	d.mu.Lock()
	m := d.made[kin{ref.Digest, base}]
	ready := false
	if m != nil {
		select {
		case <-m.done:
			ready = m.data != nil
		default:
		}
	}
	if ready {
		m.users++
	}
	d.mu.Unlock()
	if !ready {
		return nil
	}
	return m
}

// begin finds a delta, or notes that the caller makes it; it counts a user.
func (d *deltas) begin(k kin) (m *made, mine bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, false
	}
	m = d.made[k]
	if m == nil {
		m, mine = &made{kin: k, done: make(chan struct{})}, true
		m.at = d.recent.PushBack(m)
		d.made[k] = m
	}
	m.users++
	d.recent.MoveToBack(m.at)
	if d.expire == nil {
		d.expire = time.AfterFunc(madeFor, d.forgetAll)
	} else {
		d.expire.Reset(madeFor)
	}
	return m, mine
}

// make makes a delta. An error: nobody knows whether there is one.
func (d *deltas) make(ctx context.Context, m *made, ref manifest.BlobRef, base manifest.Digest) error {
	old, err := d.store.Open(base)
	if err != nil {
		return err
	}
	defer old.Close()
	content, err := d.store.Open(ref.Digest)
	if err != nil {
		return err
	}
	defer content.Close()
	size, _ := d.store.Size(base)
	out := &spool{dir: d.dir, most: worthIt(ref.Size)}
	m.form = formOf(ref.Size, size)
	if m.form == formDictionary {
		err = d.against(out, old, content)
	} else {
		select {
		case d.slots <- struct{}{}:
		case <-ctx.Done():
			m.form = formWhole
			return ctx.Err()
		}
		err = d.codec.EncodeOver(out, stoppable{ctx, old}, size, stoppable{ctx, content}, ref.Size)
		<-d.slots
	}
	switch {
	case err == nil:
		m.data = out
		return nil
	case ctx.Err() != nil && !errors.Is(err, errTooLong): // that it knows, all the same
		m.form = formWhole
	}
	return errors.Join(err, out.Close())
}

func (d *deltas) against(out io.Writer, old, content io.Reader) error {
	base, err := io.ReadAll(old)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	packed, err := d.codec.Against(base, b)
	if err == nil {
		_, err = out.Write(packed)
	}
	return err
}

// finish tells those who wait, and makes room for what was made. A delta that
// would be too long is remembered, everything else that went wrong is not.
func (d *deltas) finish(m *made, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(m.done)
	d.count(m, 1)
	if err != nil && !errors.Is(err, errTooLong) || d.closed {
		d.forget(m)
	}
	for e := d.recent.Front(); e != nil && (d.memory > d.most.memory || d.disk > d.most.disk); {
		old := e.Value.(*made)
		if e = e.Next(); old != m {
			d.forget(old)
		}
	}
}

// count counts what a delta takes. mu is held.
func (d *deltas) count(m *made, sign int64) {
	d.memory += sign * madeEntry
	if m.data == nil {
		return
	}
	if m.data.file != nil {
		d.disk += sign * m.data.size
	} else {
		d.memory += sign * m.data.size
	}
}

// forget drops a delta that is not being made; who uses it still may. mu is held.
func (d *deltas) forget(m *made) {
	select {
	case <-m.done:
	default:
		return
	}
	delete(d.made, m.kin)
	d.recent.Remove(m.at)
	d.count(m, -1)
	m.gone = true
	d.close(m)
}

// close closes what nobody uses and nobody finds. mu is held.
func (d *deltas) close(m *made) {
	if m.gone && m.users == 0 && m.data != nil {
		_ = m.data.Close()
	}
}

// release ends the use of a delta; nil is none.
func (d *deltas) release(m *made) {
	if m == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	m.users--
	d.close(m)
}

// hold has what was made stay, as far as there is room, until as many letGo.
func (d *deltas) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holds++
}

func (d *deltas) letGo() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holds--
}

func (d *deltas) forgetAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holds > 0 && !d.closed {
		d.expire.Reset(madeFor)
		return
	}
	for e := d.recent.Front(); e != nil; {
		m := e.Value.(*made)
		e = e.Next()
		d.forget(m)
	}
	if len(d.made) > 0 && !d.closed {
		d.expire.Reset(madeFor)
	}
}

// end forgets everything, for good. Nobody makes any more.
func (d *deltas) end() {
	d.mu.Lock()
	d.closed = true
	if d.expire != nil {
		d.expire.Stop()
	}
	d.mu.Unlock()
	d.forgetAll()
}

// stoppable is a reader that fails when ctx has ended.
type stoppable struct {
	ctx context.Context
	r   Reader
}

func (s stoppable) Read(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(b)
}

func (s stoppable) ReadAt(b []byte, off int64) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.ReadAt(b, off)
}
