package fallback

import (
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// What a stream may hold and cost. Both ends keep to these; a peer that does
// not is cut off.
const (
	maxPiece   = 256 << 10 // data in one message
	eagerBytes = 64 << 10  // a transfer of no more than this is one message
	smallBlob  = 1 << 20   // larger ones have a lane of their own
	batchBlobs = 1024      // blobs in one batch or one request
	batchBytes = 8 << 20   // content of a batch of small blobs
	maxBlob    = manifest.MaxSize

	shareFrom = 2 // peers that see the share make a parcel worth it; for one it would only be a detour

	openBatches = 32 // offered and not yet answered, per lane
	maxBehind   = 64 // transfers to one peer at a time, foreground and background

	fetchChunk = 256     // blobs asked for at once; as much again may be in flight
	fetchBytes = 4 << 20 // and their bytes
	fetchWidth = 4       // peers asked at the same time, unless more are needed
	maxBeats   = 600     // words that a delta is being made, or that content waits for its turn, in a row: ten minutes
)

// limits are the waits; tests shorten them.
type limits struct {
	stall time.Duration // without progress while something is expected
	hedge time.Duration // the same for a fetch, while there are others who can send it, or another way that it comes
	idle  time.Duration // an unused lane gives its stream up
	flush time.Duration // the longest flush that a receiver vouches for with "still at work"
}

func defaultLimits() limits {
	return limits{stall: 10 * time.Second, hedge: 3 * time.Second, idle: 5 * time.Minute, flush: time.Minute}
}
