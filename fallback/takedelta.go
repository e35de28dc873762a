package fallback

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/delta"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// uselessError: what came needs something that is not here, or not as it
// should be. The whole helps.
type uselessError struct{ error }

func (e *uselessError) Unwrap() error { return e.error }

// useless says of an error that is one of those that the whole helps.
func useless(err error, those ...error) error {
	for _, e := range those {
		if errors.Is(err, e) {
			return &uselessError{err}
		}
	}
	return err
}

// takeDelta takes a blob that comes as a delta. All of the delta comes in
// before anything is made of it: what then takes time and memory waits for
// nobody, and whoever trickles costs no more than a stream.
func (t *taker) takeDelta(first *pb.Piece) (blobErr, streamErr error) {
	base, err := manifest.DigestFromBytes(first.GetBase())
	n := first.GetLength()
	if err != nil || first.GetForm() > formCopies || n <= 0 || n > deltaMost || n >= t.ref.Size {
		return nil, &ProtocolError{What: fmt.Sprintf("blob %s: a delta that nobody makes", t.ref.Digest.Short())}
	}
	r := &blobReader{ref: t.ref, next: t.next, count: t.count, size: n, form: first.GetForm(), base: first.GetBase()}
	in := &spool{dir: t.push.deltas.dir, most: n}
	defer in.Close()
	r.accept(first)
	if r.fatal == nil && !r.broken && !t.push.store.Has(t.ref.Digest) {
		_, err = io.CopyBuffer(struct{ io.Writer }{in}, struct{ io.Reader }{r}, make([]byte, 64<<10))
	}
	r.drain()
	switch {
	case r.fatal != nil:
		return nil, r.fatal
	case r.broken:
		return fmt.Errorf("blob %s: %w", t.ref.Digest.Short(), errBroken), nil
	case err != nil: // of the spool: a full disk, most likely
		return &uselessError{err}, nil
	case in.size < n:
		return nil, nil // it was here
	}
	err = useless(t.patch(first.GetForm(), base, in), delta.ErrMalformed, delta.ErrShort, blob.ErrMismatch, blob.ErrNotFound, blob.ErrCorrupt)
	if err == nil {
		t.count.arrived(t.ref.Size, true)
	}
	return err, nil
}

// patch makes the content of the delta and puts it into the store.
func (t *taker) patch(form uint32, base manifest.Digest, in *spool) error {
	p := t.push
	size, ok := p.store.Size(base)
	if !ok {
		return &uselessError{&NotHeldError{Ref: manifest.BlobRef{Digest: base}}}
	}
	if form == formDictionary && (size > delta.DictLimit || t.ref.Size > delta.SmallLimit) {
		return fmt.Errorf("%w: a dictionary of %d bytes for %d", delta.ErrMalformed, size, t.ref.Size)
	}
	old, err := p.store.Open(base)
	if err != nil {
		return &uselessError{err}
	}
	defer old.Close()
	if form == formDictionary {
		dict, err := io.ReadAll(old)
		if err != nil {
			return &uselessError{err}
		}
		content, err := p.deltas.codec.Restore(dict, in.mem, int(t.ref.Size))
		if err != nil {
			return err
		}
		return p.store.PutKnown(t.ref, bytes.NewReader(content))
	}
	if err := t.slot(); err != nil {
		return err
	}
	defer func() { <-p.deltas.slots }()
	content, err := p.deltas.codec.PatchOver(old, size, in.reader(), t.ref.Size)
	if err != nil {
		return err
	}
	defer content.Close()
	return p.store.PutKnown(t.ref, &beating{r: content, t: t, last: time.Now()})
}

// slot waits for one of the few places for what takes time.
func (t *taker) slot() error {
	tick := time.NewTicker(t.push.limits.stall / 4)
	defer tick.Stop()
	for {
		select {
		case t.push.deltas.slots <- struct{}{}:
			return nil
		case <-tick.C:
			t.alive()
		case <-t.push.ctx.Done():
			return ErrClosed
		}
	}
}

// beating says now and then that somebody is at work.
type beating struct {
	r    io.Reader
	t    *taker
	last time.Time
}

func (b *beating) Read(p []byte) (int, error) {
	if b.t.push.ctx.Err() != nil {
		return 0, ErrClosed
	}
	if time.Since(b.last) > b.t.push.limits.stall/4 {
		b.last = time.Now()
		b.t.alive()
	}
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &uselessError{err} // of the base or of the delta, not of the store
	}
	return n, err
}

// working is a reader before whose first Read there is much to do (what is here
// of a blob has to be digested): until then it is said that somebody is at work.
type working struct {
	io.Reader
	stop func() // and waits for it
}

func (t *taker) work(r io.Reader) working {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(ended)
		tick := time.NewTicker(t.push.limits.hedge / 3)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				t.alive()
			case <-done:
				return
			}
		}
	}()
	return working{r, sync.OnceFunc(func() { close(done); <-ended })}
}

// Read implements io.Reader.
func (w working) Read(b []byte) (int, error) {
	w.stop()
	return w.Reader.Read(b)
}
