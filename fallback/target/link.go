package target

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
)

// A session is frames in both directions: a byte that says what it is, the
// length of what follows (4 bytes, big endian), and that.
const (
	frameBeat     byte = iota // nothing; says that somebody is there
	frameHello                // PushHello
	frameWelcome              // PushWelcome
	frameRefused              // PushRefused
	frameTree                 // PushTree
	frameHave                 // PushHave
	frameWants                // PushWants
	frameNeed                 // PushNeed
	frameContent              // PushContent
	frameData                 // bytes of streamed content
	frameEnd                  // PushEnd
	frameVoid                 // PushVoid
	frameProgress             // PushProgress
	frameReport               // PushReport
	frameBye                  // nothing: all trees are done
	frameLast
)

const (
	// maxFrame bounds what a frame holds.
	maxFrame = 2 << 20
	// pieceSize is how much of a long list or content goes into a frame.
	pieceSize = 256 << 10
	// beatEvery is how often one is heard of, idleMost how long nothing may be.
	beatEvery = 5 * time.Second
	idleMost  = 30 * time.Second
)

var (
	// ErrProtocol: the other end does not keep to the protocol.
	ErrProtocol = errors.New("the other end does not speak this protocol")
	// errIdle: nothing was heard of the other end.
	errIdle = fmt.Errorf("nothing was heard of the other end for %s", idleMost)
)

// magic is what a target says first, so that whatever a login shell has said
// before can be told apart.
const magic = "\x00gatesync push\x00"

// link is one end of a session's stream. Reading is for one goroutine; frames
// may be sent by several.
type link struct {
	conn io.ReadWriteCloser
	r    *bufio.Reader

	mu   sync.Mutex // of w
	w    *bufio.Writer
	sent bool // since the last beat

	in, out atomic.Int64 // bytes
	idle    *time.Timer
	cause   atomic.Pointer[error] // why the link was closed from this end
	stop    chan struct{}
	beats   sync.WaitGroup
}

func newLink(conn io.ReadWriteCloser, limit int64) *link {
	l := &link{conn: conn, stop: make(chan struct{})}
	l.r = bufio.NewReaderSize(counted{conn, l.heard}, 128<<10)
	var w io.Writer = countedWriter{conn, &l.out}
	if limit > 0 {
		w = newLimiter(w, limit)
	}
	l.w = bufio.NewWriterSize(w, 64<<10)
	l.idle = time.AfterFunc(idleMost, func() { l.abort(errIdle) })
	l.beats.Go(l.beat)
	return l
}

// heard notes bytes of the other end. Each is a sign of life: a frame may take
// minutes on a slow line.
func (l *link) heard(n int) {
	l.in.Add(int64(n))
	l.idle.Reset(idleMost)
}

// abort closes the stream because of err; whoever reads or writes gets err.
func (l *link) abort(err error) {
	l.cause.CompareAndSwap(nil, &err)
	_ = l.conn.Close()
}

// close ends the link and waits for what it has started.
func (l *link) close() {
	l.idle.Stop()
	close(l.stop)
	_ = l.conn.Close()
	l.beats.Wait()
}

// explain is why an operation of the stream failed.
func (l *link) explain(err error) error {
	if c := l.cause.Load(); c != nil {
		return *c
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the connection was cut: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// beat tells the other end from time to time that this one is there.
func (l *link) beat() {
	t := time.NewTicker(beatEvery)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-t.C:
		}
		l.mu.Lock()
		var err error
		if !l.sent {
			_, err = l.w.Write([]byte{frameBeat, 0, 0, 0, 0})
		}
		l.sent = false
		err = errors.Join(err, l.w.Flush())
		l.mu.Unlock()
		if err != nil {
			return // the reader hears of it
		}
	}
}

// post sends a frame, some time: flush or the next send sees to it.
func (l *link) post(kind byte, payload []byte) error {
	if len(payload) > maxFrame {
		return fmt.Errorf("a frame of %d bytes: the limit is %d", len(payload), maxFrame)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = true
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))
	if _, err := l.w.Write(head); err != nil {
		return l.explain(err)
	}
	if _, err := l.w.Write(payload); err != nil {
		return l.explain(err)
	}
	return nil
}

func (l *link) postMsg(kind byte, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return l.post(kind, b)
}

// send posts a message and flushes.
func (l *link) send(kind byte, m proto.Message) error {
	if err := l.postMsg(kind, m); err != nil {
		return err
	}
	return l.flush()
}

func (l *link) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.w.Flush(); err != nil {
		return l.explain(err)
	}
	return nil
}

// next reads a frame; the payload is the caller's.
func (l *link) next() (kind byte, payload []byte, err error) {
	for {
		var head [5]byte
		if _, err := io.ReadFull(l.r, head[:]); err != nil {
			return 0, nil, l.explain(err)
		}
		n := binary.BigEndian.Uint32(head[1:])
		if head[0] >= frameLast || n > maxFrame {
			return 0, nil, fmt.Errorf("%w: a frame of kind %d with %d bytes", ErrProtocol, head[0], n)
		}
		payload = make([]byte, n)
		if _, err := io.ReadFull(l.r, payload); err != nil {
			return 0, nil, l.explain(err)
		}
		if head[0] != frameBeat {
			return head[0], payload, nil
		}
	}
}

// expect reads a frame of one kind. A refusal comes back as a *RefusedError.
func (l *link) expect(kind byte, m proto.Message) error {
	got, payload, err := l.next()
	if err != nil {
		return err
	}
	if err := refusal(got, payload); err != nil {
		return err
	}
	if got != kind {
		return fmt.Errorf("%w: a frame of kind %d where %d was expected", ErrProtocol, got, kind)
	}
	return parse(payload, m)
}

func parse(payload []byte, m proto.Message) error {
	if err := proto.Unmarshal(payload, m); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// counted and countedWriter count what the wire carries.
type counted struct {
	io.Reader
	heard func(n int)
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if n > 0 {
		c.heard(n)
	}
	return n, err
}

type countedWriter struct {
	io.Writer
	n *atomic.Int64
}

func (c countedWriter) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// limiter lets no more than so many bytes pass in a second, and evens them out
// over tenths of seconds.
type limiter struct {
	w    io.Writer
	rate int64
	next time.Time // when the next byte may go
}

func newLimiter(w io.Writer, rate int64) *limiter {
	return &limiter{w: w, rate: max(rate, 1024)}
}

func (l *limiter) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		piece := b[:min(int64(len(b)), max(l.rate/10, 512))]
		now := time.Now()
		if wait := l.next.Sub(now); wait > 0 {
			time.Sleep(wait)
		} else {
			l.next = now
		}
		l.next = l.next.Add(time.Duration(int64(len(piece)) * int64(time.Second) / l.rate))
		var m int
		m, err = l.w.Write(piece)
		n, b = n+m, b[m:]
	}
	return n, err
}
