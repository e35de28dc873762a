package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/delta"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/syncer"
)

const (
	// flushEvery bounds what a cut sends again.
	flushEvery = 64 << 20
	// What waits for content is bounded in memory and in open files.
	waitingMost = 64 << 20
	openMost    = 200
	// inMemory: an old version of at most so many bytes is not kept open.
	inMemory = 64 << 10
	// deltaLeast: smaller content is sent as it is.
	deltaLeast = 512
)

// fetching is the content of one tree on its way.
type fetching struct {
	x     *receiving
	disk  map[manifest.Path]*syncer.Surveyed
	byRef map[manifest.Digest][]int // wants that asked for it, by their content

	mu      sync.Mutex
	room    *sync.Cond
	waiting int // bytes of memory that bases take
	files   int // that they keep open
	bases   map[int]*base
	ended   error
	open    map[int]bool // wants that were asked for and have not come
	arrived int64        // bytes since the last flush

	voids map[manifest.Digest]string // content that cannot be had
}

// base is the old version of one want, open while its content is awaited.
type base struct {
	delta.Base
	io.Closer
	cost   int // bytes of memory
	files  int
	signed bool          // the signature is told
	path   manifest.Path // of the tree
	digest manifest.Digest
}

// fetch brings all content into the blob store that the plan's steps need, and
// takes the steps out of the plan whose content cannot be had.
func (x *receiving) fetch(ctx context.Context, p *plan) error {
	f := &fetching{
		x: x, disk: map[manifest.Path]*syncer.Surveyed{}, byRef: map[manifest.Digest][]int{},
		bases: map[int]*base{}, open: map[int]bool{}, voids: map[manifest.Digest]string{},
	}
	f.room = sync.NewCond(&f.mu)
	for i := range x.disk {
		f.disk[x.disk[i].Path] = &x.disk[i]
	}
	var ask []int
	var bytes int64
	for _, i := range p.need {
		e := x.wants[i].entry
		if x.r.blobs.Has(e.Digest) {
			x.report.Resumed += uint64(e.Size)
			continue
		}
		if len(f.byRef[e.Digest]) == 0 {
			ask = append(ask, i)
			bytes += e.Size
		}
		f.byRef[e.Digest] = append(f.byRef[e.Digest], i)
	}
	if err := x.r.roomFor(bytes); err != nil {
		return err
	}
	for _, i := range ask {
		f.open[i] = true
	}
	if len(ask) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var asking sync.WaitGroup
	asking.Go(func() {
		if err := f.askAll(ctx, ask); err != nil {
			cancel(err)
			x.l.abort(err)
		}
	})
	err := f.takeAll(ctx)
	f.mu.Lock()
	f.ended = err
	if f.ended == nil {
		f.ended = io.EOF
	}
	f.room.Broadcast()
	f.mu.Unlock()
	cancel(err)
	asking.Wait()
	for _, b := range f.bases {
		_ = b.Close()
	}
	if err != nil {
		return errors.Join(err, x.r.blobs.Flush())
	}
	f.withoutVoids(p)
	return nil
}

// roomFor refuses early what would not fit.
func (r *Receiver) roomFor(bytes int64) error {
	free, err := freeOn(r.cfg.DataDir)
	if err != nil || bytes <= free-r.cfg.Reserve {
		return nil // the write will tell
	}
	return refused(CodeRoom, "no room for %d bytes on the target's disk (%d are free, %d stay so; data directory %s): free some and push again; what has arrived is not sent again",
		bytes, free, r.cfg.Reserve, r.cfg.DataDir)
}

// takeAll reads content until all that was asked for is there, or void.
func (f *fetching) takeAll(ctx context.Context) error {
	for len(f.open) > 0 {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		kind, payload, err := f.x.l.next()
		if err != nil {
			return err
		}
		switch kind {
		case frameContent:
			var m pb.PushContent
			if err := parse(payload, &m); err != nil {
				return err
			}
			err = f.content(&m)
		case frameVoid:
			var m pb.PushVoid
			if err := parse(payload, &m); err != nil {
				return err
			}
			err = f.close(int(m.GetWant()), printable(m.GetWhy()))
		default:
			if err = refusal(kind, payload); err == nil {
				err = fmt.Errorf("%w: a frame of kind %d where content was expected", ErrProtocol, kind)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// close ends a want: it has come, or (why) cannot be had.
func (f *fetching) close(i int, why string) error {
	if !f.open[i] {
		return fmt.Errorf("%w: content that nobody asked for", ErrProtocol)
	}
	delete(f.open, i)
	if why != "" {
		f.voids[f.x.wants[i].entry.Digest] = why
	}
	f.drop(i)
	return nil
}

// drop lets go of a want's old version.
func (f *fetching) drop(i int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.bases[i]; b != nil {
		delete(f.bases, i)
		f.waiting -= b.cost
		f.files -= b.files
		f.room.Broadcast()
		_ = b.Close()
	}
}

func (f *fetching) baseOf(i int) *base {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bases[i]
}

// content takes one PushContent.
func (f *fetching) content(m *pb.PushContent) error {
	if len(m.GetWants()) == 0 {
		return fmt.Errorf("%w: content of nothing", ErrProtocol)
	}
	for _, w := range m.GetWants() {
		if !f.open[int(w)] {
			return fmt.Errorf("%w: content that nobody asked for", ErrProtocol)
		}
	}
	if m.GetStreamed() {
		return f.stream(int(m.GetWants()[0]), m.GetHow())
	}
	if len(m.GetWants()) > 1 {
		return f.group(m)
	}
	i := int(m.GetWants()[0])
	ref := f.x.wants[i].entry.Blob()
	content, err := f.decode(i, m, ref)
	if err == nil {
		err = f.put(ref, content)
	}
	return f.ended1(i, m.GetHow(), err)
}

// ended1 ends a want that came, or asks for it anew, as a whole, where the old
// version was another one than was thought.
func (f *fetching) ended1(i int, how uint32, err error) error {
	if err == nil {
		return f.close(i, "")
	}
	again := errors.Is(err, delta.ErrMalformed) || errors.Is(err, delta.ErrShort) || errors.Is(err, blob.ErrMismatch)
	if how < howAgainst || !again {
		if errors.Is(err, blob.ErrMismatch) || errors.Is(err, delta.ErrMalformed) {
			return fmt.Errorf("%w: content with another digest than was announced: %w", ErrProtocol, err)
		}
		return err
	}
	f.drop(i)
	return f.x.l.send(frameNeed, &pb.PushNeed{Want: uint64(i)})
}

// group takes several small contents, packed as one.
func (f *fetching) group(m *pb.PushContent) error {
	var total int64
	for _, w := range m.GetWants() {
		total += f.x.wants[w].entry.Size
	}
	if m.GetHow() != howPacked || total > delta.SmallLimit {
		return fmt.Errorf("%w: a group of %d bytes", ErrProtocol, total)
	}
	all, err := f.x.r.codec.Unpack(m.GetData(), int(total))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	for _, w := range m.GetWants() {
		ref := f.x.wants[w].entry.Blob()
		if err := f.put(ref, all[:ref.Size]); err != nil {
			return f.ended1(int(w), howPacked, err)
		}
		all = all[ref.Size:]
		if err := f.close(int(w), ""); err != nil {
			return err
		}
	}
	return nil
}

// decode makes content of at most delta.SmallLimit of what came.
func (f *fetching) decode(i int, m *pb.PushContent, ref manifest.BlobRef) ([]byte, error) {
	if ref.Size > delta.SmallLimit {
		return nil, fmt.Errorf("%w: %d bytes in one piece", ErrProtocol, ref.Size)
	}
	b := f.baseOf(i)
	if b == nil && m.GetHow() >= howAgainst {
		return nil, fmt.Errorf("%w: a delta against nothing", ErrProtocol)
	}
	switch m.GetHow() {
	case howRaw:
		return m.GetData(), nil
	case howPacked:
		return f.x.r.codec.Unpack(m.GetData(), int(ref.Size))
	case howDelta:
		return f.x.r.codec.Patch(b.Base, m.GetData(), int(ref.Size))
	case howAgainst:
		old, err := readOld(b, f.disk[b.path].Entry.Size)
		if err != nil {
			return nil, err
		}
		return f.x.r.codec.Restore(old, m.GetData(), int(ref.Size))
	}
	return nil, fmt.Errorf("%w: content in the form %d", ErrProtocol, m.GetHow())
}

// readOld reads an old version that serves as a dictionary.
func readOld(b *base, size int64) ([]byte, error) {
	if size > delta.DictLimit {
		return nil, fmt.Errorf("%w: a dictionary of %d bytes", ErrProtocol, size)
	}
	old := make([]byte, size)
	if n, err := b.ReadAt(old, 0); n < len(old) {
		return nil, errors.Join(delta.ErrShort, err)
	}
	if manifest.DigestOf(old) != b.digest {
		return nil, delta.ErrShort // written since
	}
	return old, nil
}

// put stores small content, and flushes now and then.
func (f *fetching) put(ref manifest.BlobRef, content []byte) error {
	if err := f.x.r.blobs.PutKnown(ref, bytes.NewReader(content)); err != nil {
		return roomError(err)
	}
	return f.flushSome(ref.Size)
}

// flushSome bounds what a cut of this host's power costs; with the last of the
// content it is soon in the tree, and flushed there.
func (f *fetching) flushSome(n int64) error {
	if f.arrived += n; f.arrived < flushEvery || len(f.open) <= 1 {
		return nil
	}
	f.arrived = 0
	return roomError(f.x.r.blobs.Flush())
}

// stream takes large content: it is spooled, so that what came before a cut
// serves as an old version the next time.
func (f *fetching) stream(i int, how uint32) (err error) {
	ref := f.x.wants[i].entry.Blob()
	spool := filepath.Join(f.x.r.partialDir(), ref.Digest.String())
	data := &dataReader{l: f.x.l}
	file, err := os.OpenFile(spool, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return roomError(err)
	}
	b := f.baseOf(i)
	codec := f.x.r.codec
	out := &digesting{w: file, h: manifest.NewHasher()}
	switch {
	case how == howDelta && b != nil:
		err = codec.PatchTo(out, b.Base, data, ref.Size)
	case how == howPacked:
		err = codec.UnpackTo(out, data, ref.Size)
	default:
		err = fmt.Errorf("%w: streamed content in the form %d", ErrProtocol, how)
	}
	err = errors.Join(err, file.Close())
	if derr := data.drain(); derr != nil {
		return derr // of the stream: the spool stays
	}
	if data.void != "" {
		_ = os.Remove(spool)
		return f.close(i, data.void)
	}
	if err == nil {
		if have := (manifest.BlobRef{Digest: out.h.Digest(), Size: out.n}); have != ref {
			err = &blob.MismatchError{Want: ref, Have: have}
		} else {
			err = f.x.r.blobs.TakeFile(ref, spool)
		}
	}
	if err != nil {
		_ = os.Remove(spool)
		return f.ended1(i, how, roomError(err))
	}
	_ = os.Remove(spool + ".before")
	if err := f.ended1(i, how, nil); err != nil {
		return err
	}
	return f.flushSome(ref.Size)
}

// digesting digests what is written on the way.
type digesting struct {
	w io.Writer
	h manifest.Hasher
	n int64
}

func (d *digesting) Write(b []byte) (int, error) {
	n, err := d.w.Write(b)
	_, _ = d.h.Write(b[:n]) // never fails
	d.n += int64(n)
	return n, err
}

// withoutVoids takes the steps out whose content cannot be had.
func (f *fetching) withoutVoids(p *plan) {
	if len(f.voids) == 0 {
		return
	}
	out := p.steps[:0]
	for _, st := range p.steps {
		why := ""
		if st.Op == syncer.PutFile {
			why = f.voids[st.New.Entry.Digest]
		}
		if why == "" || f.x.r.blobs.Has(st.New.Entry.Digest) {
			out = append(out, st)
			continue
		}
		f.x.line(Line{st.Path, WhatFailed, why, st.New.Entry.Size})
	}
	p.steps = out
}
