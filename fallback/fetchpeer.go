package fallback

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// asking is one stream to one peer within a fetch: requests go ahead of what
// has come, so that no round trip is spent between them.
type asking struct {
	fetch  *fetch
	peer   cluster.NodeID
	stream grpc.BidiStreamingClient[pb.FetchRequest, pb.FetchResponse]
	dog    *watchdog
	pulse  pulse

	asked  map[manifest.Digest]*asked
	bytes  int64       // of what was asked for and has not come
	beats  int         // its words that it is at work, since something came
	pieces []*pb.Piece // of the current message, still to be taken
	within bool        // a blob is coming in
}

// asked is a blob that the peer was asked for.
type asked struct {
	*item
	begun   int64 // so much of it was here
	arrival *arrival
}

// work fetches from one peer until all is done. The stream is opened before
// anything is taken from the queue: a peer that does not answer holds nothing
// up.
func (f *fetch) work(peer cluster.NodeID) {
	for f.enter(peer) {
		err := f.ask(peer)
		if err == nil || f.ctx.Err() != nil {
			return
		}
		f.fail(peer, err)
	}
}

// patience is how long a peer may be quiet: not long, unless nobody else is
// left to ask, or it is its second chance.
func (f *fetch) patience(peer cluster.NodeID) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.second, peer) || len(f.dead)+1 == len(f.peers) {
		return f.push.limits.stall
	}
	return f.push.limits.hedge
}

func (f *fetch) ask(peer cluster.NodeID) (err error) {
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	stall := f.patience(peer)
	a := &asking{fetch: f, peer: peer, asked: map[manifest.Digest]*asked{}}
	a.pulse.beat()
	a.dog = startWatchdog(stall, func() { cancel(&StalledError{Peer: peer, After: stall}) })
	defer a.dog.stop()
	defer func() {
		if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause
		}
		for d, q := range a.asked {
			f.push.arrivals.end(d, q.arrival)
			if f.ctx.Err() == nil { // otherwise Fetch tells why all of them end
				f.requeue(q.item, peer, err)
			}
		}
	}()
	a.dog.progress(true)
	conn, err := f.push.peers.Conn(ctx, peer)
	if err != nil {
		return err
	}
	if a.stream, err = pb.NewContentClient(conn).Fetch(ctx); err != nil {
		return err
	}
	a.dog.progress(false)
	return a.run()
}

func (a *asking) run() error {
	for {
		for len(a.asked) < fetchChunk && a.bytes < fetchBytes {
			items := a.fetch.take(a.peer, len(a.asked) == 0)
			if len(items) == 0 {
				break
			}
			if err := a.request(items); err != nil {
				return err
			}
		}
		if len(a.asked) == 0 {
			return a.stream.CloseSend()
		}
		if err := a.message(); err != nil {
			return err
		}
		for len(a.pieces) > 0 {
			if err := a.blob(); err != nil {
				return err
			}
		}
	}
}

// request asks for blobs; they are this stream's until they come or it ends.
// What came, or is being pushed here, since the fetch began is not asked for.
func (a *asking) request(items []*item) error {
	p := a.fetch.push
	m := &pb.FetchRequest{Hears: true}
	for _, it := range items {
		if p.store.Has(it.ref.Digest) {
			a.fetch.finish(it, nil)
			continue
		}
		q := &asked{item: it, arrival: p.arrivals.begin(it.ref.Digest, &a.pulse, true)}
		if q.arrival == nil && !it.waits {
			a.fetch.leave(it)
			continue
		}
		a.asked[it.ref.Digest] = q
		a.bytes += it.ref.Size
		n := named{BlobRef: it.ref}
		if !it.whole { // what has begun had no base, or one that was of no use: it goes on rather than that it is tried again
			if n.begun = p.begun(it.ref); n.begun == 0 && p.deltas.likely(it.ref, it.base) {
				n.base = it.base
			}
			q.begun = n.begun
		}
		m.Want = append(m.Want, infoOf(n))
	}
	if len(m.GetWant()) == 0 {
		return nil
	}
	a.dog.progress(true)
	return a.why(a.stream.Send(m))
}

// why finds the reason that a failed Send does not tell.
func (a *asking) why(err error) error {
	if errors.Is(err, io.EOF) {
		_, err = a.stream.Recv()
	}
	return err
}

// message receives, and deals with what the peer does not hold.
func (a *asking) message() error {
	m, err := a.stream.Recv()
	if errors.Is(err, io.EOF) {
		return a.violated("the stream ended before everything had come")
	}
	if err != nil {
		return err
	}
	a.moved()
	if len(m.GetPieces()) == 0 && len(m.GetMissing()) == 0 {
		if a.beats++; a.beats > maxBeats {
			return a.violated("nothing but words")
		}
		return nil
	}
	a.beats = 0
	if a.within && len(m.GetMissing()) > 0 {
		return a.violated("another answer within a blob")
	}
	for _, raw := range m.GetMissing() {
		q, err := a.find(raw)
		if err != nil {
			return err
		}
		a.drop(q)
		a.fetch.requeue(q.item, a.peer, &MissingError{Peer: a.peer, Digest: q.ref.Digest})
	}
	a.pieces = m.GetPieces()
	return nil
}

// blob stores the blob whose first piece is next.
func (a *asking) blob() error {
	first, _ := a.piece()
	q, err := a.find(first.GetDigest())
	if err != nil {
		return err
	}
	a.within = true
	p := a.fetch.push
	t := taker{push: p, ref: q.ref, begun: q.begun, next: a.piece, alive: a.alive, count: &p.stats.fetched}
	blobErr, err := t.take(first)
	a.within = false
	if err != nil {
		return err
	}
	a.moved()
	a.drop(q)
	switch {
	case blobErr == nil:
		a.fetch.finish(q.item, nil)
	case !q.whole && errors.As(blobErr, new(*uselessError)):
		p.inVain(a.peer, q.ref.Digest, blobErr)
		q.whole = true
		a.fetch.requeue(q.item, "", nil)
	case errors.Is(blobErr, blob.ErrNoRoom):
		a.fetch.finish(q.item, blobErr) // nobody else's copy is smaller
	default:
		a.fetch.requeue(q.item, a.peer, blobErr)
	}
	return nil
}

// piece is the stream's next piece.
func (a *asking) piece() (*pb.Piece, error) {
	for len(a.pieces) == 0 {
		if err := a.message(); err != nil {
			return nil, err
		}
	}
	p := a.pieces[0]
	a.pieces = a.pieces[1:]
	return p, nil
}

// find returns what was asked for; nothing else may come.
func (a *asking) find(digest []byte) (*asked, error) {
	d, err := manifest.DigestFromBytes(digest)
	if err != nil {
		return nil, a.violated(err.Error())
	}
	q := a.asked[d]
	if q == nil {
		return nil, a.violated("blob " + d.Short() + " was not asked for")
	}
	return q, nil
}

// drop takes a blob off this stream.
func (a *asking) drop(q *asked) {
	delete(a.asked, q.ref.Digest)
	a.bytes -= q.ref.Size
	a.fetch.push.arrivals.end(q.ref.Digest, q.arrival)
	a.dog.progress(len(a.asked) > 0)
}

func (a *asking) moved() {
	a.pulse.beat()
	a.dog.progress(len(a.asked) > 0)
}

// alive tells both ends that something takes time; the peer has sent a delta or
// a rest, so it knows this word.
func (a *asking) alive() {
	a.moved()
	_ = a.stream.Send(&pb.FetchRequest{}) // the next Recv says why not
}

func (a *asking) violated(what string) error { return &ProtocolError{Peer: a.peer, What: what} }
