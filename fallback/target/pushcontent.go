package target

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/gatesync/gatesync/delta"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

const (
	// groupFile: content up to here travels with others, up to groupSize of them.
	groupFile = 64 << 10
	groupSize = 512 << 10
)

// need is what a target asks for.
type need struct {
	want      int
	base      manifest.Digest // zero: none
	signature []byte
}

// needs is the queue between the goroutine that reads and the one that sends.
// It holds no more than the target lets wait.
type needs struct {
	mu    sync.Mutex
	cond  *sync.Cond
	queue []need
	ended error
}

func newNeeds() *needs {
	q := &needs{}
	q.cond = sync.NewCond(&q.mu)
	return q
}

func (q *needs) add(n need) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, n)
	q.cond.Signal()
}

func (q *needs) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = err
	q.cond.Signal()
}

// take returns the next need; ok is false where none is there and, with wait,
// none will come.
func (q *needs) take(wait bool) (n need, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for wait && len(q.queue) == 0 && q.ended == nil {
		q.cond.Wait()
	}
	if len(q.queue) == 0 || q.ended != nil {
		return n, false
	}
	n, q.queue = q.queue[0], q.queue[1:]
	return n, true
}

// content sends what the target needs, until its report.
func (x *pushing) content() error {
	q := newNeeds()
	var reading sync.WaitGroup
	reading.Go(func() {
		err := x.answers(q)
		if !errors.Is(err, errReported) {
			x.l.abort(err) // whoever is sending need not go on
		}
		q.end(err)
	})
	s := &sending{x: x, codec: delta.NewCodec(), q: q}
	err := s.run()
	if err != nil {
		x.l.abort(err)
	}
	reading.Wait()
	switch {
	case errors.Is(q.ended, errReported):
		return nil
	case err == nil, errors.As(q.ended, new(*RefusedError)):
		return q.ended
	}
	return err
}

// answers reads what the target says. It ends with errReported or what went wrong.
func (x *pushing) answers(q *needs) error {
	var sig []byte
	for {
		kind, payload, err := x.l.next()
		if err != nil {
			return err
		}
		if err := refusal(kind, payload); err != nil {
			return err
		}
		switch kind {
		case frameNeed:
			var m pb.PushNeed
			if err := parse(payload, &m); err != nil {
				return err
			}
			if m.GetWant() >= uint64(len(x.wants)) || !x.wants[m.GetWant()].entry.HasContent() {
				return fmt.Errorf("%w: it asks for content that there is not", ErrProtocol)
			}
			if sig = append(sig, m.GetSignature()...); len(sig) > delta.MaxChunks {
				return fmt.Errorf("%w: a signature of more than %d bytes", ErrProtocol, delta.MaxChunks)
			}
			if m.GetMore() {
				continue
			}
			n := need{want: int(m.GetWant()), signature: sig}
			sig = nil
			if len(m.GetBase()) > 0 {
				if n.base, err = manifest.DigestFromBytes(m.GetBase()); err != nil {
					return fmt.Errorf("%w: %w", ErrProtocol, err)
				}
			}
			q.add(n)
		case frameProgress:
			var m pb.PushProgress
			if err := parse(payload, &m); err != nil {
				return err
			}
			x.progress(Progress{Phase: "apply", Done: int64(m.GetDone()), Total: int64(m.GetTotal())})
		case frameReport:
			var m pb.PushReport
			if err := parse(payload, &m); err != nil {
				return err
			}
			more, err := x.takeReport(&m)
			if err != nil {
				return err
			}
			if !more {
				return errReported
			}
		default:
			return fmt.Errorf("%w: a frame of kind %d", ErrProtocol, kind)
		}
	}
}

// sending is the content of one tree on its way out. One goroutine.
type sending struct {
	x     *pushing
	codec *delta.Codec
	q     *needs
	group []uint64
	body  []byte
	of    int64 // bytes of content that are wanted altogether, at most
}

func (s *sending) run() error {
	for _, w := range s.x.wants {
		if w.entry.HasContent() {
			s.of += w.entry.Size
		}
	}
	for {
		n, ok := s.q.take(false)
		if !ok { // let what is there go, then wait
			if err := errors.Join(s.flushGroup(), s.x.l.flush()); err != nil {
				return err
			}
			if n, ok = s.q.take(true); !ok {
				return nil
			}
		}
		if err := s.one(n); err != nil {
			return err
		}
		s.x.progress(Progress{Phase: "send", Done: int64(s.x.sum.Files), Total: int64(len(s.x.wants)), Bytes: s.x.sum.Content, Of: s.of})
	}
}

// one sends the content of one want.
func (s *sending) one(n need) error {
	if err := s.x.ctx.Err(); err != nil {
		return err
	}
	w := s.x.wants[n.want]
	ref := w.entry.Blob()
	r, err := s.x.src.Open(s.x.ctx, s.x.tree, w.path, ref)
	if err != nil {
		return s.void(n, "cannot be read: "+err.Error())
	}
	defer r.Close()
	if ref.Size > delta.SmallLimit {
		return s.stream(n, r, ref)
	}
	content := make([]byte, ref.Size)
	if _, err := io.ReadFull(r, content); err != nil && ref.Size > 0 || manifest.DigestOf(content) != ref.Digest {
		return s.void(n, "was written while it was pushed: push again")
	}
	s.x.sum.Files++
	s.x.sum.Content += ref.Size
	if n.base.IsZero() && len(n.signature) == 0 && ref.Size <= groupFile {
		s.group = append(s.group, uint64(n.want))
		s.body = append(s.body, content...)
		if len(s.body) >= groupSize-groupFile {
			return s.flushGroup()
		}
		return nil
	}
	how, data, err := s.small(n, content)
	if err != nil {
		return err
	}
	return s.x.l.postMsg(frameContent, &pb.PushContent{Wants: []uint64{uint64(n.want)}, How: how, Data: data})
}

// small finds the shortest form of content.
func (s *sending) small(n need, content []byte) (how uint32, data []byte, err error) {
	if !n.base.IsZero() && len(n.signature) == 0 {
		if old, ok := s.old(n.base); ok {
			how = howAgainst
			data, err = s.codec.Against(old, content)
		}
	} else if len(n.signature) > 0 {
		var sig delta.Signature
		if sig, err = delta.ParseSignature(n.signature); err == nil {
			how = howDelta
			data, err = s.codec.Encode(sig, content)
		}
	}
	if err != nil {
		return 0, nil, err
	}
	if how == 0 || len(data) > len(content)/2 {
		packed, err := s.codec.Pack(content)
		if err != nil {
			return 0, nil, err
		}
		if how == 0 || len(packed) < len(data) {
			how, data = howPacked, packed
		}
	}
	if len(data) >= len(content) {
		return howRaw, content, nil
	}
	return how, data, nil
}

// old reads an older version that serves as a dictionary.
func (s *sending) old(d manifest.Digest) ([]byte, bool) {
	r, err := s.x.src.Old(s.x.ctx, d)
	if err != nil {
		return nil, false
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, delta.DictLimit+1))
	return b, err == nil && len(b) <= delta.DictLimit && manifest.DigestOf(b) == d
}

func (s *sending) flushGroup() error {
	if len(s.group) == 0 {
		return nil
	}
	data, err := s.codec.Pack(s.body)
	if err != nil {
		return err
	}
	m := &pb.PushContent{Wants: s.group, How: howPacked, Data: data}
	s.group, s.body = nil, s.body[:0]
	return s.x.l.postMsg(frameContent, m)
}

func (s *sending) void(n need, why string) error {
	return s.x.l.postMsg(frameVoid, &pb.PushVoid{Want: uint64(n.want), Why: why})
}

// stream sends large content in pieces.
func (s *sending) stream(n need, r io.Reader, ref manifest.BlobRef) error {
	if err := s.flushGroup(); err != nil {
		return err
	}
	how, sig := uint32(howPacked), delta.Signature{}
	if len(n.signature) > 0 {
		var err error
		if sig, err = delta.ParseSignature(n.signature); err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		how = howDelta
	}
	if err := s.x.l.postMsg(frameContent, &pb.PushContent{Wants: []uint64{uint64(n.want)}, How: how, Streamed: true}); err != nil {
		return err
	}
	in := &tee{r: io.LimitReader(r, ref.Size), h: manifest.NewHasher(), moved: func(n int64) {
		s.x.progress(Progress{Phase: "send", Done: int64(s.x.sum.Files), Total: int64(len(s.x.wants)), Bytes: s.x.sum.Content + n, Of: s.of})
	}}
	sure, vouched := r.(vouching)
	in.vouched = vouched
	out := &dataWriter{l: s.x.l}
	var err error
	if how == howDelta {
		err = s.codec.EncodeTo(out, sig, in, ref.Size)
	} else {
		err = s.codec.PackTo(out, in)
	}
	if err == nil {
		err = out.flush()
	}
	if out.err != nil {
		return out.err // of the stream
	}
	end := &pb.PushEnd{Whole: err == nil && in.n == ref.Size}
	if vouched {
		end.Whole = end.Whole && sure.Unchanged()
	} else {
		end.Whole = end.Whole && in.h.Digest() == ref.Digest
	}
	if !end.Whole {
		end.Why = "was written while it was pushed: push again"
	} else {
		s.x.sum.Files++
		s.x.sum.Content += ref.Size
	}
	return s.x.l.postMsg(frameEnd, end)
}

// vouching content knows without another digest whether it is what it was when
// it was digested. The target compares the digest anyway.
type vouching interface{ Unchanged() bool }

// tee digests what is read, unless somebody vouches for it.
type tee struct {
	r       io.Reader
	h       manifest.Hasher
	vouched bool
	n       int64
	told    int64
	moved   func(n int64)
}

func (t *tee) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	if !t.vouched {
		_, _ = t.h.Write(b[:n]) // never fails
	}
	if t.n += int64(n); t.n-t.told >= 4<<20 {
		t.told = t.n
		t.moved(t.n)
	}
	return n, err
}

// dataWriter sends what is written to it, in frames.
type dataWriter struct {
	l   *link
	buf bytes.Buffer
	err error
}

func (d *dataWriter) Write(b []byte) (int, error) {
	d.buf.Write(b)
	if d.buf.Len() >= pieceSize {
		return len(b), d.flush()
	}
	return len(b), d.err
}

func (d *dataWriter) flush() error {
	for d.buf.Len() > 0 && d.err == nil {
		d.err = d.l.post(frameData, d.buf.Next(pieceSize))
	}
	return d.err
}
