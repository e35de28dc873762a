package node

import (
	"context"
	"errors"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/fallback"
	"github.com/gatesync/gatesync/manifest"
)

const (
	// upwardWithin is how long a follower waits for its parent to have what it
	// is fetching itself, before it asks others.
	upwardWithin = 5 * time.Second
	upwardPause  = 50 * time.Millisecond
	upwardMost   = 500 * time.Millisecond
)

// missingThere tells that a peer answered that it does not hold a blob.
func missingThere(err error) bool {
	var missing *fallback.MissingError
	return errors.As(err, &missing)
}

// fetchUp is Fetch on a follower: from its parent, which fetches the same from
// its own; then from whoever of the path and of Raft's members answers. So what
// an author or a leader sends does not grow with the number of followers.
func (c *carrier) fetchUp(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases, done func(manifest.Digest, error)) error {
	if done == nil {
		done = func(manifest.Digest, error) {}
	}
	deadline := time.Now().Add(upwardWithin)
	left := blobs
	for pause := upwardPause; len(left) > 0 && time.Now().Before(deadline); pause = min(2*pause, upwardMost) {
		parent, _, ok := c.upstream()
		if !ok {
			break
		}
		var coming bool
		left, coming = c.fetchFrom(ctx, left, bases, parent, done)
		if ctx.Err() != nil || len(left) == 0 || !coming {
			break
		}
		_ = wait(ctx, pause)
	}
	if len(left) == 0 {
		return nil
	}
	return c.way.Fetch(ctx, left, bases, c.beyond(), done)
}

// fetchFrom fetches what it can and returns the rest; coming tells that the
// peer answers, and may have that in a moment.
func (c *carrier) fetchFrom(ctx context.Context, blobs []manifest.BlobRef, bases manifest.Bases, from cluster.NodeID, done func(manifest.Digest, error)) (left []manifest.BlobRef, coming bool) {
	got := map[manifest.Digest]bool{}
	coming = true
	_ = c.way.Fetch(ctx, blobs, bases, []cluster.NodeID{from}, func(d manifest.Digest, err error) { // never two at once
		if err == nil {
			got[d] = true
			done(d, nil)
		}
		coming = coming && (err == nil || c.missing(err))
	})
	for _, ref := range blobs {
		if !got[ref.Digest] {
			left = append(left, ref)
		}
	}
	return left, coming
}

// beyond is whom a follower asks when its parent cannot help: those above it,
// and the members of Raft that are alive.
func (c *carrier) beyond() []cluster.NodeID {
	_, path, _ := c.upstream()
	var from []cluster.NodeID
	for _, m := range c.members.Members() {
		above := false
		for _, id := range path {
			above = above || id == string(m.ID)
		}
		if m.ID != c.self && (above || m.Role != cluster.Follower && c.alive(m.ID)) {
			from = append(from, m.ID)
		}
	}
	return from
}
