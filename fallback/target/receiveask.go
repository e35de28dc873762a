package target

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/gatesync/gatesync/delta"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/syncer"
)

// askAll asks for content, with what the target has of it. One goroutine.
func (f *fetching) askAll(ctx context.Context, ask []int) error {
	for n, i := range ask {
		if err := f.askFor(ctx, i); err != nil {
			return err
		}
		if n%64 == 63 {
			if err := f.x.l.flush(); err != nil {
				return err
			}
		}
	}
	return f.x.l.flush()
}

func (f *fetching) askFor(ctx context.Context, i int) error {
	m := &pb.PushNeed{Want: uint64(i)}
	b, sig := f.sign(i)
	if b == nil {
		return f.x.l.postMsg(frameNeed, m)
	}
	if !b.digest.IsZero() {
		m.Base = b.digest[:]
	}
	f.mu.Lock()
	full := func() bool {
		return len(f.bases) > 0 && (f.waiting+b.cost > waitingMost || b.files > 0 && f.files+b.files > openMost) && f.ended == nil
	}
	for full() {
		f.mu.Unlock()
		err := f.x.l.flush() // what is waited for has to be asked for
		f.mu.Lock()
		if err != nil {
			f.mu.Unlock()
			return err
		}
		if full() {
			f.room.Wait()
		}
	}
	if f.ended != nil {
		f.mu.Unlock()
		_ = b.Close()
		return ctx.Err()
	}
	f.waiting += b.cost
	f.files += b.files
	f.bases[i] = b
	f.mu.Unlock()
	var wire []byte
	if b.signed {
		wire = sig.Append(nil)
	}
	for len(wire) > pieceSize {
		if err := f.x.l.postMsg(frameNeed, &pb.PushNeed{Want: uint64(i), Signature: wire[:pieceSize], More: true}); err != nil {
			return err
		}
		wire = wire[pieceSize:]
	}
	m.Signature = wire
	return f.x.l.postMsg(frameNeed, m)
}

// sign opens what the target has of a want's content: what stands at its path,
// and what an earlier push has left half-way. nil: nothing that helps.
func (f *fetching) sign(i int) (*base, delta.Signature) {
	w := f.x.wants[i]
	b := &base{path: w.path}
	var from io.ReaderAt
	var size int64
	var open closers
	v := f.disk[w.path]
	if v != nil && v.Sight == syncer.Seen && v.Entry.Kind == manifest.File && v.Entry.Size >= 8 && w.entry.Size >= deltaLeast {
		if file, err := f.x.t.Open(w.path); err == nil {
			open = append(open, file)
			from, size, b.digest = file, v.Entry.Size, v.Entry.Digest
		}
	}
	if part := f.x.r.partial(w.entry.Digest); w.entry.Size > delta.SmallLimit && part != "" {
		if file, err := os.Open(part); err == nil {
			n := fileSize(part)
			open = append(open, file)
			if from != nil {
				from = joined{file, from, n}
			} else {
				from = file
			}
			size += n
		}
	}
	if from == nil {
		return nil, delta.Signature{}
	}
	if size <= inMemory {
		old := make([]byte, size)
		if n, _ := from.ReadAt(old, 0); n < len(old) {
			_ = open.Close()
			return nil, delta.Signature{}
		}
		from, b.cost = bytes.NewReader(old), len(old)
		_ = open.Close()
		open = nil
	}
	b.Closer, b.files = open, len(open)
	small := w.entry.Size <= delta.SmallLimit
	if small && f.x.hello.GetHistory() && size <= delta.DictLimit {
		b.Base = delta.Base{ReaderAt: from}
		return b, delta.Signature{} // the pusher has the old version, most likely
	}
	sig, at, err := f.x.r.codec.Sign(io.NewSectionReader(from, 0, size), size, from)
	if err != nil {
		_ = open.Close()
		return nil, delta.Signature{}
	}
	b.Base, b.signed = at, true
	b.cost += 16 * sig.Chunks()
	return b, sig
}

// partial is where an earlier push has left a piece of content, "" for nowhere.
func (r *Receiver) partial(d manifest.Digest) string {
	spool := filepath.Join(r.partialDir(), d.String())
	before := spool + ".before"
	if fileSize(spool) > fileSize(before) {
		if err := os.Rename(spool, before); err != nil {
			return ""
		}
	}
	if fileSize(before) == 0 {
		return ""
	}
	return before
}
