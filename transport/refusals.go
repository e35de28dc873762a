package transport

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

const (
	// refusalEvery is how often one peer is named for one kind of refusal.
	refusalEvery = time.Minute
	// maxRefusals bounds the peers and kinds that are told apart.
	maxRefusals = 512
)

// Refusals logs what is refused to whom: the first time at once, and then, if
// it goes on, a count at most once a minute. A peer that sends a million bad
// messages so fills neither the log nor the memory. Safe for concurrent use;
// it has no goroutine: a count is told with the first refusal after the minute.
type Refusals struct {
	log *slog.Logger
	now func() time.Time

	mu    sync.Mutex
	known map[refusalKey]*refusalCount
}

type refusalKey struct{ peer, kind string }

type refusalCount struct {
	told   time.Time
	untold int
}

// NewRefusals logs to log; nil: nowhere.
func NewRefusals(log *slog.Logger) *Refusals {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Refusals{log: log, now: time.Now, known: map[refusalKey]*refusalCount{}}
}

// Note tells that something was refused. peer is a node's id, or an address
// where none is known; kind is one of a few words of ours, never the peer's.
func (r *Refusals) Note(peer, kind string, why error) {
	times := r.due(refusalKey{peer, kind})
	switch {
	case times == 1:
		r.log.Warn("refused", "peer", peer, "what", kind, "err", why)
	case times > 1:
		r.log.Warn("refused again and again", "peer", peer, "what", kind, "times", times, "err", why)
	}
}

// due returns how many refusals the line to be written stands for; 0: none.
func (r *Refusals) due(key refusalKey) (times int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	c := r.known[key]
	if c == nil {
		if len(r.known) >= maxRefusals {
			r.forgetOld(now)
		}
		if len(r.known) >= maxRefusals {
			key = refusalKey{peer: "many others", kind: key.kind} // as many as there are kinds
		}
		if c = r.known[key]; c == nil {
			c = &refusalCount{}
			r.known[key] = c
		}
	}
	c.untold++
	if !c.told.IsZero() && now.Sub(c.told) < refusalEvery {
		return 0
	}
	times, c.untold, c.told = c.untold, 0, now
	return times
}

func (r *Refusals) forgetOld(now time.Time) {
	for k, c := range r.known {
		if now.Sub(c.told) >= refusalEvery {
			delete(r.known, k)
		}
	}
}

// watchCalls notes each call that ended by the fault of its caller; also those
// that gRPC itself refuses, before any handler or interceptor sees them.
type watchCalls struct{ refusals *Refusals }

type methodKey struct{}

// TagRPC implements stats.Handler.
func (watchCalls) TagRPC(ctx context.Context, i *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, methodKey{}, i.FullMethodName)
}

// HandleRPC implements stats.Handler.
func (w watchCalls) HandleRPC(ctx context.Context, s stats.RPCStats) {
	end, ok := s.(*stats.End)
	if !ok || end.Error == nil {
		return
	}
	switch status.Code(end.Error) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.ResourceExhausted, codes.Unimplemented, codes.OutOfRange:
		id, _ := Peer(ctx)
		method, _ := ctx.Value(methodKey{}).(string)
		w.refusals.Note(string(id), method, end.Error)
	}
}

// TagConn implements stats.Handler.
func (watchCalls) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (watchCalls) HandleConn(context.Context, stats.ConnStats) {}
