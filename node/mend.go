package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// mendAgain is how long it waits before it tries again what is still lost.
const mendAgain = time.Minute

// mender brings back content that the blob store lost to a damaged disk: from
// other members, or from this node's own trees. The store has given receipts
// for it, so this does not wait until somebody needs it. It cannot tell what
// a damaged store held: everything is missed that the cluster still stands for.
// It works after damage only: what this node lacks otherwise is the keeper's,
// and what one of both fetches the other leaves alone.
// One goroutine; lost may be asked from any.
type mender struct {
	janitor *janitor
	blobs   *recentBlobs
	trees   *treeSet
	current func(context.Context) error // waits until it is known what is committed
	fetch   func(context.Context, []manifest.BlobRef, manifest.Bases, func(manifest.Digest, error)) error
	coming  func(manifest.Digest) bool // the keeper or a tree fetches it right now
	again   time.Duration
	slog    *slog.Logger

	mended atomic.Uint64 // blobs that were brought back

	mu      sync.Mutex
	missing []LostBlob
}

func (m *mender) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.blobs.Hurt():
		case <-timer.C:
		}
		if err := m.blobs.Repair(); err != nil {
			m.slog.Warn("the damaged blob store cannot be repaired yet", "err", err)
			timer.Reset(m.again)
		}
		if m.current(ctx) != nil {
			return nil
		}
		left, err := m.mend(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			m.slog.Warn("cannot look for lost content now", "err", err)
		}
		if err != nil || left {
			timer.Reset(m.again)
		}
	}
}

// mend fetches what is missing and tells whether something is left.
func (m *mender) mend(ctx context.Context) (left bool, err error) {
	wanted, err := m.lacking()
	if err != nil {
		return true, err
	}
	if len(wanted) > 0 {
		refs := make([]manifest.BlobRef, 0, len(wanted))
		for d, w := range wanted {
			if !m.coming(d) {
				refs = append(refs, w.blob)
			}
		}
		m.slog.Warn("content is missing in the damaged blob store; it is fetched anew", "blobs", len(refs))
		if err := m.fetch(ctx, refs, nil, nil); err != nil {
			m.slog.Info("not all of it is on other members", "err", err)
		}
		m.fromTrees(ctx, wanted)
		if err := m.blobs.Flush(); err != nil {
			return true, err
		}
	}
	var lost []LostBlob
	brought := 0
	for d, w := range wanted {
		switch {
		case m.blobs.Has(d):
			brought++
		case m.coming(d):
			left = true // for the next time
		default:
			lost = append(lost, w.lost())
		}
	}
	slices.SortFunc(lost, func(a, b LostBlob) int { return strings.Compare(a.Digest, b.Digest) })
	m.tell(lost)
	if len(wanted) > 0 {
		m.mended.Add(uint64(brought))
		m.slog.Info("mended the blob store", "brought_back", brought, "lost", len(lost))
	}
	return left || len(lost) > 0, nil
}

// lacking finds what something stands for and the store does not hold.
func (m *mender) lacking() (map[manifest.Digest]*stand, error) {
	wanted := map[manifest.Digest]*stand{}
	err := m.janitor.stands(func(ref manifest.BlobRef, what func() string) {
		w, ok := wanted[ref.Digest]
		if !ok && m.blobs.Store.Has(ref.Digest) {
			return
		}
		if !ok {
			w = &stand{blob: ref}
			wanted[ref.Digest] = w
		}
		w.where = append(w.where, what())
	})
	return wanted, err
}

// fromTrees takes content that no other member has from where it still stands.
func (m *mender) fromTrees(ctx context.Context, wanted map[manifest.Digest]*stand) {
	for _, t := range m.trees.all() {
		anc, err := t.syncr.Ancestor(ctx)
		if err != nil {
			return
		}
		anc.All(func(p manifest.Path, a syncer.Ancestor) bool {
			if _, ok := wanted[a.Entry.Digest]; !ok || m.blobs.Store.Has(a.Entry.Digest) {
				return ctx.Err() == nil
			}
			if err := t.syncr.Capture(ctx, p); err != nil {
				m.slog.Debug("cannot take lost content from the tree", "path", p, "err", err)
			}
			return ctx.Err() == nil
		})
	}
}

// tell remembers what is lost for status, and logs what is newly so.
func (m *mender) tell(lost []LostBlob) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range lost {
		if !slices.ContainsFunc(m.missing, func(was LostBlob) bool { return was.Digest == l.Digest }) {
			m.slog.Error("content is lost on this node, and no member that can be reached has it", "blob", l.Digest, "stands_for", l.Where)
		}
	}
	m.missing = lost
}

func (m *mender) lost() []LostBlob {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.missing
}

// stand is content, and what it stands for.
type stand struct {
	blob  manifest.BlobRef
	where []string
}

// lostAtMost bounds what status says about one lost blob.
const lostAtMost = 10

func (s *stand) lost() LostBlob {
	slices.Sort(s.where)
	where := slices.Compact(s.where)
	if more := len(where) - lostAtMost; more > 0 {
		where = append(where[:lostAtMost:lostAtMost], fmt.Sprintf("and %d more", more))
	}
	return LostBlob{Digest: s.blob.Digest.String(), Size: s.blob.Size, Where: where}
}
