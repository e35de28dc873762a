package fallback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// class is what a lane carries; each has its own stream, so that none waits
// behind a larger one.
type class uint8

const (
	eager class = iota // whole batches in one message
	small              // batches of small blobs
	large              // large blobs
)

type laneKey struct {
	peer  cluster.NodeID
	class class
}

// lane sends batches to one peer. Its goroutine lives until the Push is closed;
// its stream is opened when there is something to send, kept, and given up
// when it fails or is not used for long.
type lane struct {
	push *Push
	key  laneKey
	in   chan *batch // unbuffered: what a lane has taken, it answers
}

// batch is one offer and its answer.
type batch struct {
	refs   []manifest.BlobRef
	bases  manifest.Bases  // of them, where deltas can be made
	parcel string          // on the share, where all of it lies; "": nowhere
	ctx    context.Context // nothing more is sent once it has ended
	result chan<- outcome  // has room for the one answer

	// The session's, under its lock.
	id       uint64
	need     []outgoing // still to be sent
	needed   bool       // the peer has said what it needs
	again    bool       // … a second time: what came as a delta was of no use
	saved    bool       // something was sent that may be of no use
	answered bool
	ended    bool // no more messages of it will be sent
}

// outcome is a peer's answer to a batch: its store's id, or why not.
type outcome struct {
	store string
	err   error
}

// answer tells the waiting transfer, once.
func (b *batch) answer(o outcome) {
	if !b.answered {
		b.answered = true
		b.result <- o
	}
}

// lane returns the lane to a peer, starting it if need be.
func (p *Push) lane(key laneKey) *lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lanes[key]
	if l == nil {
		l = &lane{push: p, key: key, in: make(chan *batch)}
		p.lanes[key] = l
		if !p.closed {
			p.wg.Add(1)
			go l.run()
		}
	}
	return l
}

func (l *lane) run() {
	defer l.push.wg.Done()
	for {
		select {
		case b := <-l.in:
			if err := l.session(b); err != nil && l.push.ctx.Err() == nil {
				l.push.log.Warn("a push broke off", "peer", string(l.key.peer), "error", err)
			}
		case <-l.push.ctx.Done():
			return
		}
	}
}

// session is one stream's life. Two goroutines share it: the lane's own sends,
// another one receives; neither waits for the other, or two full pipes could.
type session struct {
	lane   *lane
	stream grpc.BidiStreamingClient[pb.PushRequest, pb.PushResponse]
	ctx    context.Context
	cancel context.CancelCauseFunc
	dog    *watchdog
	cut    cutter
	wake   chan struct{} // of the sender; holds one

	mu    sync.Mutex
	open  map[uint64]*batch // not yet answered, or not yet ended
	ready []*batch          // their needs are known and still to be sent
	last  uint64            // batch id
}

// session opens a stream for a first batch and serves the lane with it until
// it fails, stalls or is idle. Every batch that it took has an answer then.
func (l *lane) session(first *batch) (err error) {
	s := &session{lane: l, wake: make(chan struct{}, 1), open: map[uint64]*batch{}}
	s.ctx, s.cancel = context.WithCancelCause(l.push.ctx)
	s.cut = cutter{ctx: s.ctx, store: l.push.store, deltas: l.push.deltas, pace: l.push.pace, sent: &l.push.stats.sent}
	s.dog = startWatchdog(l.push.limits.stall, func() {
		s.cancel(&StalledError{Peer: l.key.peer, After: l.push.limits.stall})
	})
	received := make(chan struct{})
	defer func() {
		if err != nil { // perhaps it is another version, when it is back
			l.push.readsDeltas(l.key.peer, false)
		}
		s.cancel(err)
		s.dog.stop()
		<-received
		s.cut.close()
		for _, b := range s.open {
			b.answer(outcome{err: err})
		}
	}()
	s.take(first)
	if err := s.connect(); err != nil {
		close(received)
		return s.cause(err)
	}
	go func() { // ends with s.ctx, and is waited for above
		defer close(received)
		s.cancel(s.receive())
	}()
	if err := s.send(first); err != nil {
		<-received // knows why, where gRPC's Send only says that it is over
		return s.cause(err)
	}
	return s.serve(received)
}

func (s *session) connect() error {
	conn, err := s.lane.push.peers.Conn(s.ctx, s.lane.key.peer)
	if err != nil {
		return err
	}
	s.stream, err = pb.NewContentClient(conn).Push(s.ctx)
	return err
}

// cause prefers the reason that the session was ended for.
func (s *session) cause(err error) error {
	if c := context.Cause(s.ctx); c != nil && !errors.Is(c, context.Canceled) {
		err = c
	} else if s.lane.push.ctx.Err() != nil {
		err = ErrClosed
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the peer ended the stream")
	}
	return err
}

// serve is the sending side. New offers go before pieces: the answers to them
// travel while pieces do.
func (s *session) serve(received <-chan struct{}) error {
	idle := time.NewTimer(s.lane.push.limits.idle)
	defer idle.Stop()
	for {
		in := s.lane.in
		b, n := s.state()
		if n >= openBatches {
			in = nil
		}
		var err error
		if b != nil {
			select {
			case fresh := <-in:
				s.take(fresh)
				err = s.send(fresh)
			default:
				err = s.sendPieces(b)
			}
		} else {
			idle.Reset(s.lane.push.limits.idle)
			select {
			case fresh := <-in:
				s.take(fresh)
				err = s.send(fresh)
			case <-s.wake:
			case <-s.ctx.Done():
				err = s.ctx.Err()
			case <-idle.C:
				if n == 0 {
					return nil
				}
			}
		}
		if err != nil {
			<-received
			return s.cause(err)
		}
	}
}

// state returns the batch whose pieces are to be sent next, and how many are open.
func (s *session) state() (next *batch, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) > 0 {
		next = s.ready[0]
	}
	return next, len(s.open)
}

// take makes a batch this session's to answer.
func (s *session) take(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	b.id = s.last
	s.open[b.id] = b
	s.dog.progress(true)
}

// send offers a batch; an eager one whole.
func (s *session) send(b *batch) error {
	m := &pb.PushRequest{Offer: &pb.Offer{Batch: b.id, Parcel: b.parcel}}
	for _, ref := range b.refs {
		m.Offer.Blobs = append(m.Offer.Blobs, infoOf(named{BlobRef: ref, base: b.bases[ref.Digest]}))
	}
	if s.lane.key.class == eager {
		queue := outgoings(b.refs)
		saved := len(b.bases) > 0 && s.lane.push.deltasTo(s.lane.key.peer)
		for i := range queue {
			if saved {
				queue[i].base = b.bases[queue[i].ref.Digest]
			}
		}
		m.Offer.Eager = true
		m.Pieces = s.cut.fill(&queue)
		s.lane.push.pace.passed(dataIn(m.Pieces))
		m.End = b.id
		s.mu.Lock()
		b.ended, b.saved = true, saved
		s.mu.Unlock()
	}
	return s.write(m)
}

// sendPieces sends one message of what a batch still lacks.
func (s *session) sendPieces(b *batch) error {
	s.mu.Lock()
	dropped := b.answered || b.ctx.Err() != nil
	need := b.need
	s.mu.Unlock()
	m := &pb.PushRequest{}
	if dropped {
		if len(need) > 0 {
			m.Pieces = s.cut.abort(need[0])
		}
		need = nil
	} else {
		m.Pieces = s.cut.fill(&need)
	}
	if len(need) == 0 {
		m.End = b.id
	}
	s.mu.Lock()
	b.need = need
	if m.End != 0 {
		b.ended = true
		s.ready = s.ready[1:]
		s.forget(b)
	}
	s.mu.Unlock()
	if err := s.lane.push.pace.wait(s.ctx, dataIn(m.GetPieces()), s.alive); err != nil {
		return err
	}
	return s.write(m)
}

// alive says that pieces wait for their turn. A peer that reads no deltas does
// not know the word, and may give the batch up.
func (s *session) alive() {
	s.dog.progress(true)
	if s.lane.push.deltasTo(s.lane.key.peer) {
		_ = s.stream.Send(&pb.PushRequest{}) // the next Send says why not
	}
}

// write sends one message. gRPC is done with it when Send returns (nothing that
// keeps messages is installed), so the cutter's buffer may be used again.
func (s *session) write(m *pb.PushRequest) error {
	err := s.stream.Send(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dog.progress(len(s.open) > 0)
	return err
}

// forget drops a batch that has been answered and of which nothing more is sent.
func (s *session) forget(b *batch) {
	if b.answered && b.ended {
		delete(s.open, b.id)
	}
}

// receive is the receiving side; it returns why the stream ended.
func (s *session) receive() error {
	for {
		r, err := s.stream.Recv()
		if err != nil {
			return s.cause(err)
		}
		if err := s.handle(r); err != nil {
			return err
		}
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (s *session) handle(r *pb.PushResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.dog.progress(len(s.open) > 0) }()
	if r.GetDeltas() {
		s.lane.push.readsDeltas(s.lane.key.peer, true)
	}
	if r.GetOf() == nil {
		return nil // still at work
	}
	b := s.open[r.GetBatch()]
	if b == nil || b.answered {
		return s.violated("an answer to a batch that is not open")
	}
	switch of := r.GetOf().(type) {
	case *pb.PushResponse_Needs:
		if why := of.Needs.GetShareTrouble(); why != "" && b.parcel != "" && s.lane.push.share != nil {
			s.lane.push.share.doubted(s.lane.key.peer, why)
		}
		return s.needs(b, of.Needs)
	case *pb.PushResponse_Receipt:
		if of.Receipt.GetStore() == "" {
			return s.violated("a receipt without a store")
		}
		b.answer(outcome{store: of.Receipt.GetStore()})
		switch {
		case b.needed || b.ended:
		case b.parcel == "":
			s.lane.push.stats.skipped.Add(int64(len(b.refs)))
		case s.lane.push.share != nil:
			s.lane.push.share.served(s.lane.key.peer)
		}
	case *pb.PushResponse_Refused:
		b.answer(outcome{err: &RefusedError{Peer: s.lane.key.peer, Why: fmt.Sprintf("%.500s", of.Refused)}})
	}
	if !b.needed {
		b.ended = true // answered to the offer alone: nothing was or will be sent
	}
	s.forget(b)
	return nil
}

// needs notes what the peer lacks of a batch, in the order of the offer, and
// what it holds that saves some of it. The second time it is what came in vain.
func (s *session) needs(b *batch, n *pb.Needs) error {
	switch {
	case !b.needed && !b.ended:
		b.needed = true
	case b.ended && b.saved && !b.again:
		b.again, b.ended = true, false
	default:
		return s.violated("needs that were not asked for")
	}
	if len(n.GetDigests()) > len(b.refs) {
		return s.violated("more needs than were offered")
	}
	wanted := make(map[manifest.Digest]*outgoing, len(n.GetDigests()))
	for _, raw := range n.GetDigests() {
		d, err := manifest.DigestFromBytes(raw)
		if err != nil {
			return s.violated(err.Error())
		}
		wanted[d] = &outgoing{}
	}
	if !b.again {
		if err := s.savings(b, n, wanted); err != nil {
			return err
		}
	}
	for _, ref := range b.refs {
		if o := wanted[ref.Digest]; o != nil {
			o.ref = ref
			b.need = append(b.need, *o)
		}
	}
	if len(b.need) != len(wanted) {
		return s.violated("needs of what was not offered")
	}
	if !b.again {
		s.lane.push.stats.skipped.Add(int64(len(b.refs) - len(b.need)))
	}
	s.ready = append(s.ready, b)
	return nil
}

// savings notes what the peer has of what it needs: the base, or the beginning.
func (s *session) savings(b *batch, n *pb.Needs, wanted map[manifest.Digest]*outgoing) error {
	if len(n.GetOver())+len(n.GetBegun()) > len(wanted) {
		return s.violated("more savings than needs")
	}
	for _, raw := range n.GetOver() {
		d, err := manifest.DigestFromBytes(raw)
		if err != nil || wanted[d] == nil || b.bases[d].IsZero() {
			return s.violated("a base that was not offered")
		}
		wanted[d].base, b.saved = b.bases[d], true
	}
	for _, info := range n.GetBegun() {
		has, err := nameOf(info)
		if err != nil || wanted[has.Digest] == nil {
			return s.violated("the beginning of what it does not need")
		}
		if has.begun < has.Size {
			wanted[has.Digest].begun, b.saved = has.begun, true
		}
	}
	return nil
}

func (s *session) violated(what string) error {
	return &ProtocolError{Peer: s.lane.key.peer, What: what}
}
