package fallback

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
)

// Observer is asked and told about those who call this node; nil fields are
// left out. Its functions may be called by several goroutines at once.
type Observer struct {
	// Caller says which peer a call comes from; "" where nobody knows. How many
	// streams may be open is counted by it.
	Caller func(context.Context) cluster.NodeID
	// Refused is told what of a peer was not taken, as often as it happens.
	Refused func(peer cluster.NodeID, what string, why error)
}

// Observe sets the observer; call it before Register.
func (p *Push) Observe(o Observer) { p.observer = o }

// How many streams one peer may have open here: it needs one for each of its
// lanes, and one for each of its fetches. Each holds what it has offered.
const (
	maxPushing  = 16
	maxFetching = 64
)

// callKey counts the streams of one peer.
type callKey struct {
	peer cluster.NodeID
	push bool
}

// admit counts a stream in; leave counts it out.
func (p *Push) admit(ctx context.Context, push bool) (peer cluster.NodeID, leave func(), err error) {
	if p.observer.Caller != nil {
		peer = p.observer.Caller(ctx)
	}
	key, most := callKey{peer, push}, maxFetching
	if push {
		most = maxPushing
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls[key] >= most {
		return peer, nil, status.Errorf(codes.ResourceExhausted, "%d streams are open already", most)
	}
	p.calls[key]++
	return peer, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.calls[key]--; p.calls[key] == 0 {
			delete(p.calls, key)
		}
	}, nil
}

// refused tells the observer, but not of what is our own fault or nobody's.
func (p *Push) refused(peer cluster.NodeID, what string, why error) {
	if p.observer.Refused != nil && !errors.Is(why, ErrClosed) {
		p.observer.Refused(peer, what, why)
	}
}
