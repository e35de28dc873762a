package fallback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
)

// shareNet is a testNet whose nodes have a share, each through a path of its own.
type shareNet struct {
	*testNet
	mu   sync.Mutex
	told map[cluster.NodeID]*Share
}

func newShareNet(t *testing.T) *shareNet {
	return &shareNet{testNet: newNet(t), told: map[cluster.NodeID]*Share{}}
}

func (n *shareNet) nonces() map[cluster.NodeID]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[cluster.NodeID]string{}
	for id, s := range n.told {
		out[id] = s.Nonce()
	}
	return out
}

// sharer is a node with a share. Faults are injected before each call into it.
type sharer struct {
	*testNode
	*Chain
	share *Share
	fault atomic.Pointer[func(op string) error]
}

func (s *sharer) inject(fn func(op string) error) { s.fault.Store(&fn) }
func (s *sharer) heal()                           { s.fault.Store(nil) }

func quickShare() shareLimits {
	l := defaultShareLimits()
	l.beat, l.retry, l.patience, l.flush = 20*time.Millisecond, 5*time.Millisecond, 150*time.Millisecond, 150*time.Millisecond
	l.grace, l.doubt, l.reserve = 100*time.Millisecond, 20*time.Millisecond, 0
	return l
}

func (n *shareNet) sharer(t *testing.T, id cluster.NodeID, dir string) *sharer {
	t.Helper()
	x := &sharer{share: NewShare(ShareConfig{Path: dir, Cluster: "c-1", Self: id, Told: n.nonces})}
	x.share.limit(quickShare())
	x.share.gate.Before(func(op, _ string) error {
		if f := x.fault.Load(); f != nil {
			return (*f)(op)
		}
		return nil
	})
	x.testNode = n.node(id, withLimits(short()), func(p *Push) { x.Chain = NewChain(x.share, p) })
	n.mu.Lock()
	n.told[id] = x.share
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.share.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := x.share.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// eventually waits until something holds; it is told by nobody.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 2 minutes: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *sharer) awaitPeers(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d members see the share", n), func() bool { return len(s.share.Status().Peers) == n })
}

// shareDir is an empty directory that a person has named as a share.
func shareDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ShareMarker), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func parcels(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "c-1", blobsDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func three(t *testing.T) (dir string, a, b, c *sharer) {
	dir = shareDir(t)
	net := newShareNet(t)
	a, b, c = net.sharer(t, "n-a", dir), net.sharer(t, "n-b", dir), net.sharer(t, "n-c", dir)
	a.awaitPeers(t, 2)
	return dir, a, b, c
}

// Spread spreads to b and c and waits for all.
func (s *sharer) spreadAll(t *testing.T, all [][]byte) []manifest.BlobRef {
	t.Helper()
	refs := s.store.addAll(all)
	receipts, err := s.Chain.Spread(testContext(t), refs, nil, nodes("n-b", "n-c"), nil)
	if err != nil || len(receipts) != 3 {
		t.Fatalf("receipts %v: %v", receipts, err)
	}
	return refs
}

// The author writes once, the others read, the push carries nothing, and what
// everybody has is removed.
func TestShareCarriesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, a, b, c := three(t)
		refs := a.spreadAll(t, append(content(300, 5000, 1), content(2, 3<<20, 2)...))
		if !b.store.holds(refs) || !c.store.holds(refs) {
			t.Fatal("a receipt was given for what is not durable")
		}
		size := sizeOf(refs)
		st := a.share.Status()
		if sent := a.Stats().Sent.Bytes; sent != 0 || st.Laid.Bytes != size {
			t.Errorf("pushed %d, laid %d of %d bytes", sent, st.Laid.Bytes, size)
		}
		for _, x := range []*sharer{b, c} {
			if got := x.share.Status().Taken; got.Bytes != size || got.Blobs != int64(len(refs)) {
				t.Errorf("taken %+v", got)
			}
		}
		eventually(t, "the parcels are removed", func() bool { return len(parcels(t, dir)) == 0 && a.share.Status().Held == 0 })
	})
}

// Small batches stay on the push: they are one message.
func TestShareLeavesSmallBatchesToThePush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _, _ := three(t)
		a.spreadAll(t, content(3, 2000, 1))
		if st := a.share.Status(); st.Laid.Bytes != 0 {
			t.Errorf("laid %+v", st.Laid)
		}
	})
}

// Whatever fails on the share, on either side, the content arrives, by the
// push; and once it is well again, it is used again.
func TestShareFailsAndThePushCarries(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ESTALE, syscall.EIO, syscall.ENOENT, syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT, syscall.EACCES} {
		t.Run(errno.Error(), timeless(func(t *testing.T) {
			_, a, b, c := three(t)
			seed := uint64(1)
			try := func(who ...*sharer) {
				t.Helper()
				for _, x := range who {
					x.inject(func(string) error { return errno })
				}
				for range 3 {
					seed++
					refs := a.spreadAll(t, content(100, 3000, seed))
					if !b.store.holds(refs) || !c.store.holds(refs) {
						t.Fatal("it did not arrive")
					}
				}
				for _, x := range who {
					x.heal()
				}
				a.awaitPeers(t, 2)
				eventually(t, "the share is used again", func() bool {
					seed++
					before := a.share.Status().Laid.Bytes
					sent := a.Stats().Sent.Bytes
					refs := a.spreadAll(t, content(100, 3000, seed))
					return a.share.Status().Laid.Bytes-before == sizeOf(refs) && a.Stats().Sent.Bytes == sent
				})
			}
			try(a)
			try(b)
			try(a, b, c)
		}))
	}
}

// A mount that hangs costs its patience once, leaves one call behind for each
// that was inside, and no goroutine for any that comes later.
func TestShareHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, c := three(t)
		release := make(chan struct{})
		hang := func(string) error { <-release; return nil }
		a.inject(hang)
		b.inject(hang)
		begun := time.Now()
		refs := a.spreadAll(t, content(100, 3000, 7))
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
		eventually(t, "status tells", func() bool {
			return strings.Contains(a.share.Status().Why, "does not answer") && strings.Contains(b.share.Status().Why, "does not answer")
		})
		before := runtime.NumGoroutine()
		for i := range 20 {
			begun := time.Now()
			refs = append(refs, a.spreadAll(t, content(100, 3000, uint64(100+i)))...)
			if took := time.Since(begun); took > time.Second {
				t.Errorf("while it hangs a spread took %s", took)
			}
		}
		if n := runtime.NumGoroutine(); n > before+10 {
			t.Errorf("%d goroutines, and %d before", n, before)
		}
		if n := a.share.Status().Stuck + b.share.Status().Stuck; n == 0 || n > 4 {
			t.Errorf("%d stuck calls", n)
		}
		if !b.store.holds(refs) || !c.store.holds(refs) {
			t.Error("something did not arrive")
		}
		close(release)
		a.heal()
		b.heal()
		a.awaitPeers(t, 2)
		eventually(t, "no call is stuck", func() bool { return a.share.Status().Stuck+b.share.Status().Stuck == 0 })
	})
}

// Files on the share are believed after their digest only.
func TestPromise_NoLoss_WrongBytesOnTheShare(t *testing.T) {
	for name, spoil := range map[string]func(file string) error{
		"other bytes": func(file string) error {
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 1
			return os.WriteFile(file, b, 0o600)
		},
		"cut short": func(file string) error { return os.Truncate(file, 1000) },
		"gone":      os.Remove,
		"a FIFO":    func(file string) error { return errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600)) },
		"a symlink": func(file string) error { return errors.Join(os.Remove(file), os.Symlink("/dev/zero", file)) },
	} {
		t.Run(name, timeless(func(t *testing.T) {
			dir, a, b, c := three(t)
			spoilt := false
			for _, x := range []*sharer{b, c} {
				var once sync.Once
				x.inject(func(op string) error {
					if op == "open a parcel" {
						once.Do(func() {
							a.share.mu.Lock()
							defer a.share.mu.Unlock()
							if spoilt {
								return
							}
							spoilt = true
							for _, p := range parcels(t, dir) {
								if err := spoil(filepath.Join(dir, "c-1", blobsDir, p)); err != nil {
									t.Error(err)
								}
							}
						})
					}
					return nil
				})
			}
			refs := a.spreadAll(t, content(100, 3000, 5))
			for try := uint64(6); !spoilt && try < 26; try++ { // a disk that is slow for a moment is no share, and so nothing is spoilt
				a.awaitPeers(t, 2)
				refs = a.spreadAll(t, content(100, 3000, try))
			}
			if !spoilt || !b.store.holds(refs) || !c.store.holds(refs) {
				t.Errorf("it did not arrive whole: spoilt %v, at b %v, at c %v; %+v", spoilt, b.store.holds(refs), c.store.holds(refs), a.share.Status())
			}
			for _, x := range []*sharer{b, c} {
				for _, ref := range refs {
					x.store.mu.Lock()
					if !bytes.Equal(x.store.blobs[ref.Digest], a.store.blobs[ref.Digest]) {
						t.Error("wrong bytes were taken")
					}
					x.store.mu.Unlock()
				}
			}
		}))
	}
}

// What a member says of a parcel leads nowhere but to a parcel of these blobs.
func TestHostileParcels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, a, _, _ := three(t)
		outside := filepath.Join(filepath.Dir(dir), "outside")
		secret := []byte("outside of the share")
		if err := os.WriteFile(outside, secret, 0o644); err != nil {
			t.Fatal(err)
		}
		ref := manifest.BlobRef{Digest: manifest.DigestOf(secret), Size: int64(len(secret))}
		other := manifest.BlobRef{Digest: manifest.DigestOf([]byte("x")), Size: 1}
		for _, name := range []string{"", "../../../outside", outside, ".", "x", other.Digest.String(), strings.ToUpper(ref.Digest.String()) + "/", ShareMarker} {
			err := a.share.take(testContext(t), name, []manifest.BlobRef{ref}, func(manifest.Digest) bool { return true },
				func(manifest.BlobRef, io.Reader) error { t.Errorf("%q was read", name); return nil }, func() {})
			wantError[*ProtocolError](t, err)
		}
		// A link that somebody has put in a parcel's place is not followed.
		link := filepath.Join(dir, "c-1", blobsDir, ref.Digest.String())
		if err := os.Symlink(outside, link); err != nil {
			t.Fatal(err)
		}
		err := a.share.take(testContext(t), ref.Digest.String(), []manifest.BlobRef{ref}, func(manifest.Digest) bool { return true },
			func(manifest.BlobRef, io.Reader) error { t.Error("a link was followed"); return nil }, func() {})
		if err == nil {
			t.Error("a link was followed")
		}
	})
}

// Who has another directory under the same path is not believed to see ours.
func TestShareOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newShareNet(t)
		a, b, c := net.sharer(t, "n-a", shareDir(t)), net.sharer(t, "n-b", shareDir(t)), net.sharer(t, "n-c", shareDir(t))
		for _, x := range []*sharer{a, b, c} {
			eventually(t, "it is open", func() bool { return x.share.Nonce() != "" })
		}
		a.spreadAll(t, content(100, 3000, 1))
		if st := a.share.Status(); len(st.Peers) != 0 || st.Laid.Bytes != 0 {
			t.Errorf("status %+v", st)
		}
	})
}

// An empty directory that is no mount is what is left of an unmounted share.
func TestPrepareShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var not *NotShareError
		if err := PrepareShare(dir, anywhere); !errors.As(err, &not) || !strings.Contains(err.Error(), "nothing is mounted") {
			t.Errorf("an empty local directory: %v", err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("something was written there: %v %v", entries, err)
		}
		if err := PrepareShare(filepath.Join(dir, "no"), anywhere); !errors.As(err, &not) {
			t.Errorf("no directory: %v", err)
		}
		marker := filepath.Join(dir, ShareMarker)
		for _, c := range []struct{ text, want string }{
			{"", ""}, {`{"format":2}`, "upgrade"}, {"rubbish", "damaged"}, {`{"format":1}`, ""},
		} {
			if err := os.WriteFile(marker, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := PrepareShare(dir, anywhere); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("marker %q: %v", c.text, err)
			}
		}
	})
}

// What dead nodes have left behind goes after a time; what is in use stays.
func TestShareCollectsLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := shareDir(t)
		blobs := filepath.Join(dir, "c-1", blobsDir)
		if err := os.MkdirAll(blobs, 0o700); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(blobs)
		if err != nil {
			t.Fatal(err)
		}
		now := fi.ModTime() // the mount's clock
		old := now.Add(-3 * time.Hour)
		for name, at := range map[string]time.Time{"aa": old, "bb.X.part": old, "cc": now} {
			file := filepath.Join(blobs, name)
			if err := errors.Join(os.WriteFile(file, []byte("x"), 0o600), os.Chtimes(file, at, at)); err != nil {
				t.Fatal(err)
			}
		}
		net := newShareNet(t)
		net.sharer(t, "n-a", dir)
		eventually(t, "old leftovers are gone", func() bool { return fmt.Sprint(parcels(t, dir)) == "[cc]" })
	})
}

// A node takes up no more room than its part, and leaves some free.
func TestShareIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _, _ := three(t)
		a.share.mu.Lock()
		a.share.limits.most = 100_000
		a.share.mu.Unlock()
		a.spreadAll(t, content(100, 3000, 1))
		if st := a.share.Status(); st.Laid.Bytes != 0 || st.Held != 0 {
			t.Errorf("status %+v", st)
		}
	})
}

func anywhere(string) error { return nil }

// logged is a log that several goroutines write.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A share that turns read-only is named in the log once, with the remedy, and
// stays in the status: the file that cannot be written has another name at each
// attempt.
func TestShareTurnsReadOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		dir := shareDir(t)
		s := NewShare(ShareConfig{Path: dir, Cluster: "c-1", Self: "n-a", Told: func() map[cluster.NodeID]string { return nil }, Log: slog.New(slog.NewTextHandler(log, nil))})
		var tries atomic.Int64
		s.limit(quickShare())
		s.gate.Before(func(op, _ string) error {
			if op != "take up" {
				return nil
			}
			return &fs.PathError{Op: "openat", Path: fmt.Sprintf("nodes/n-a.%d.part", tries.Add(1)), Err: unix.EROFS}
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		eventually(t, "it was tried often", func() bool { return tries.Load() > 20 })
		if why := s.Status().Why; !strings.Contains(why, "export and mount it writable") {
			t.Errorf("status says %q", why)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		said := log.String()
		if n := strings.Count(said, "cannot be used") - strings.Count(said, "shutting down"); n != 1 || !strings.Contains(said, "export and mount it writable") {
			t.Errorf("it was named %d times:\n%s", n, said)
		}
	})
}
