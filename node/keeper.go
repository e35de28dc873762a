package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
)

const (
	// keepEvery is how often everything is looked through again, for what was
	// lost meanwhile (a damaged blob that was set aside).
	keepEvery = time.Hour
	// keepPatience is how long somebody else has for bringing what is missing:
	// an author whose push is under way, or a tree that is about to fetch it.
	keepPatience = time.Second
	// keepRetry and keepRetryMost are the pauses after nothing came.
	keepRetry     = time.Second
	keepRetryMost = 30 * time.Second
	// keepBatch and keepBytes bound what one fetch asks for: what it brought is
	// then durable, whatever happens to the rest.
	keepBatch = 1024
	keepBytes = 64 << 20
)

// keptLog is what the keeper needs of the log.
type keptLog interface {
	contentLog
	watcher
	Revision() manifest.Revision
	Oldest() manifest.Revision
}

// keptBlobs is what it needs of the blob store.
type keptBlobs interface {
	Has(manifest.Digest) bool
	Flush() error
}

// keeper brings here what this node lacks of the content that the log stands
// for: of every tree, whether it lies on this node or not, and of the retained
// history. Receipts make a majority of the voters hold a blob when it is
// committed; the keeper makes that true of whoever votes later. So every voter
// comes to hold everything, and a joiner or a witness holds it before it
// votes. It asks instead of being sent to: nobody has to know what another
// lacks, and nothing has to be agreed upon when the voters change.
//
// One goroutine runs; the figures may be read by any.
type keeper struct {
	log    keptLog
	blobs  keptBlobs
	fetch  func(context.Context, []manifest.BlobRef, manifest.Bases, func(manifest.Digest, error)) error
	coming func(manifest.Digest) bool // somebody else fetches it right now
	logger *slog.Logger

	whole   atomic.Uint64            // all content up to this revision is durable here
	missing atomic.Uint64            // blobs, when it last looked …
	looked  atomic.Uint64            // … for the content up to this revision
	nowhere atomic.Pointer[[]string] // what nobody who answers has, the first of it; nil: all comes

	mu   sync.Mutex
	told chan struct{} // closed when whole has grown; nil while nobody waits
}

func (k *keeper) run(ctx context.Context) error {
	ch, stop := k.log.Watch()
	defer stop()
	again := time.NewTicker(keepEvery)
	defer again.Stop()
	all := true
	for {
		k.complete(ctx, all)
		all = false
		select {
		case <-ctx.Done():
			return nil
		case <-ch:
		case <-again.C:
			all = true
		}
	}
}

// complete looks for what is missing and brings it, until nothing is or ctx
// ends.
func (k *keeper) complete(ctx context.Context, all bool) {
	pause := keepRetry
	missed := map[manifest.Digest]time.Time{} // since when
	for ctx.Err() == nil {
		upTo := k.log.Revision()
		if !all && uint64(upTo) == k.whole.Load() {
			return
		}
		missing, whole := k.lacks(upTo, all)
		k.missing.Store(uint64(len(missing)))
		k.looked.Store(uint64(upTo))
		if !k.reach(ctx, whole) {
			continue
		}
		if len(missing) == 0 {
			k.nowhere.Store(nil)
			return
		}
		overdue, next := k.overdue(missing, missed)
		if len(overdue) == 0 {
			_ = wait(ctx, next)
			continue
		}
		got, full, err := k.bring(ctx, overdue)
		if got > 0 {
			k.nowhere.Store(nil)
			pause = keepRetry
			continue
		}
		k.name(slices.DeleteFunc(overdue, func(ref manifest.BlobRef) bool { return full[ref.Digest] }))
		if err != nil {
			k.logger.Warn("content that this node should hold cannot be had now; trying again", "blobs", len(overdue), "err", err)
		}
		_ = wait(ctx, pause)
		pause = min(2*pause, keepRetryMost)
		all = true // perhaps it was trimmed
	}
}

// lacks lists what is not here, each once: of everything, or of what was
// committed since the revision up to which all is here. whole is the revision
// up to which all is here now.
func (k *keeper) lacks(upTo manifest.Revision, all bool) (missing []manifest.BlobRef, whole manifest.Revision) {
	whole = upTo
	seen := map[manifest.Digest]bool{}
	note := func(ref manifest.BlobRef, rev manifest.Revision) {
		if seen[ref.Digest] {
			whole = min(whole, max(rev, 1)-1)
		} else if !k.blobs.Has(ref.Digest) {
			seen[ref.Digest] = true
			missing = append(missing, ref)
			whole = min(whole, max(rev, 1)-1)
		}
	}
	from := k.content()
	if all || from == 0 || from > upTo || from+1 < k.log.Oldest() {
		eachContent(k.log, note)
	} else {
		eachCommitted(k.log.History("", upTo, int(upTo-from)), note)
	}
	return missing, whole
}

// overdue picks what has been missing for so long that nobody else seems to
// bring it, and tells when the next may be.
func (k *keeper) overdue(missing []manifest.BlobRef, missed map[manifest.Digest]time.Time) (overdue []manifest.BlobRef, next time.Duration) {
	now, still := time.Now(), map[manifest.Digest]bool{}
	next = keepPatience
	for _, ref := range missing {
		still[ref.Digest] = true
		since, known := missed[ref.Digest]
		if !known {
			since = now
			missed[ref.Digest] = now
		}
		switch left := keepPatience - now.Sub(since); {
		case k.coming(ref.Digest):
		case left <= 0:
			overdue = append(overdue, ref)
		default:
			next = min(next, left)
		}
	}
	maps.DeleteFunc(missed, func(d manifest.Digest, _ time.Time) bool { return !still[d] })
	return overdue, next
}

// bring fetches blobs, batch by batch. full are those that others have, and that
// this node has no room for.
func (k *keeper) bring(ctx context.Context, refs []manifest.BlobRef) (got int, full map[manifest.Digest]bool, err error) {
	full = map[manifest.Digest]bool{}
	bases := k.kin(refs)
	for len(refs) > 0 && ctx.Err() == nil {
		n, size := 0, int64(0)
		for n < len(refs) && n < keepBatch && (n == 0 || size+refs[n].Size <= keepBytes) {
			size += refs[n].Size
			n++
		}
		ferr := k.fetch(ctx, refs[:n], bases, func(d manifest.Digest, e error) {
			switch {
			case e == nil:
				got++
			case errors.Is(e, blob.ErrNoRoom):
				full[d] = true
			}
		})
		if err == nil {
			err = ferr
		}
		refs = refs[n:]
	}
	if got > 0 {
		k.logger.Info("fetched content that was missing here", "blobs", got)
	}
	return got, full, err
}

// kin finds what content has replaced, where that is here, and else what has
// replaced it, which comes before it.
func (k *keeper) kin(refs []manifest.BlobRef) manifest.Bases {
	missing := make(map[manifest.Digest]bool, len(refs))
	for _, ref := range refs {
		missing[ref.Digest] = true
	}
	bases := manifest.Bases{}
	for _, c := range k.log.History("", 0, math.MaxInt) {
		for _, ch := range c.Changes {
			switch old, content := ch.Old.Entry, ch.New; {
			case missing[content.Digest] && k.blobs.Has(old.Digest):
				bases.Note(content, old)
			case missing[old.Digest] && bases[old.Digest].IsZero():
				bases.Note(old, content)
			}
		}
	}
	return bases
}

// namedAtMost bounds how much of what is nowhere is named.
const namedAtMost = 5

// name notes what nobody has, and what it stands for: a person has to start a
// member that is off, or bring the content back.
func (k *keeper) name(refs []manifest.BlobRef) {
	if len(refs) == 0 {
		k.nowhere.Store(nil)
		return
	}
	stands := map[manifest.Digest]string{}
	for _, ref := range refs[:min(len(refs), namedAtMost)] {
		stands[ref.Digest] = ""
	}
	left := len(stands)
	eachStand(k.log, func(ref manifest.BlobRef, _ manifest.Revision, what func() string) {
		if left == 0 {
			return
		}
		if is, wanted := stands[ref.Digest]; wanted && is == "" {
			stands[ref.Digest] = what()
			left--
		}
	})
	var names []string
	for d, what := range stands {
		names = append(names, plainText(fmt.Sprintf("blob %s of %s", d.Short(), what), maxLack))
	}
	slices.Sort(names)
	k.nowhere.Store(&names)
}

// lacking names what nobody who answers has, the first few.
func (k *keeper) lacking() []string {
	if names := k.nowhere.Load(); names != nil {
		return *names
	}
	return nil
}

// maxLack bounds one such name, in bytes.
const maxLack = 512

// plainText is text that may be printed and sent: paths may hold anything.
func plainText(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
	for len(s) > limit {
		_, last := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-last]
	}
	return s
}

// reach makes durable what is here and notes that it is everything up to a
// revision. It tells false where that failed.
func (k *keeper) reach(ctx context.Context, rev manifest.Revision) bool {
	if rev == k.content() {
		return true
	}
	if err := k.blobs.Flush(); err != nil {
		k.logger.Warn("content is here but not durable; trying again", "err", err)
		_ = wait(ctx, keepRetry)
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.whole.Store(uint64(rev))
	if k.told != nil {
		close(k.told)
		k.told = nil
	}
	return true
}

// content is the revision up to which everything is durable here.
func (k *keeper) content() manifest.Revision { return manifest.Revision(k.whole.Load()) }

// waitContent waits until everything up to rev is.
func (k *keeper) waitContent(ctx context.Context, rev manifest.Revision) error {
	for {
		k.mu.Lock()
		if k.content() >= rev {
			k.mu.Unlock()
			return nil
		}
		if k.told == nil {
			k.told = make(chan struct{})
		}
		told := k.told
		k.mu.Unlock()
		select {
		case <-told:
		case <-ctx.Done():
			return fmt.Errorf("the content of revision %d is not complete here: %w", rev, ctx.Err())
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
