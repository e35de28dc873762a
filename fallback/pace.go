package fallback

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// pace bounds what a node sends of content, to all others together. The zero value
// does not. Safe for concurrent use.
type pace struct{ bytes *rate.Limiter }

// paceTick is how often who waits for his turn says that he is alive.
const paceTick = time.Second

func newPace(perSecond int64) pace {
	if perSecond <= 0 {
		return pace{}
	}
	return pace{rate.NewLimiter(rate.Limit(perSecond), maxPiece)}
}

// piece is how much one message takes: little where little may be sent, so that
// who shares it hears something before he takes the other end for dead.
func (p pace) piece() int {
	if p.bytes == nil {
		return maxPiece
	}
	return max(eagerBytes, min(maxPiece, int(p.bytes.Limit()/10)))
}

// wait waits until n bytes may go; alive is called meanwhile.
func (p pace) wait(ctx context.Context, n int, alive func()) error {
	if p.bytes == nil || n == 0 {
		return nil
	}
	turn := p.bytes.ReserveN(time.Now(), n)
	for {
		left := turn.Delay()
		if left <= 0 {
			return nil
		}
		t := time.NewTimer(min(left, paceTick))
		select {
		case <-t.C:
			alive()
		case <-ctx.Done():
			t.Stop()
			turn.Cancel()
			return context.Cause(ctx)
		}
	}
}

// passed counts n bytes that did not wait: what is small and urgent goes first,
// and the rest waits the longer.
func (p pace) passed(n int) {
	if p.bytes != nil && n > 0 {
		p.bytes.ReserveN(time.Now(), n)
	}
}

// dataIn counts the bytes of content in a message.
func dataIn(pieces []*pb.Piece) (n int) {
	for _, p := range pieces {
		n += len(p.GetData())
	}
	return n
}
