package node

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatesync/gatesync/blob"
)

// TestScrubFindsDamageInItsTime: one pass takes no longer than it may, finds
// what nobody reads, and ends at once when the node does.
func TestScrubFindsDamageInItsTime(t *testing.T) {
	dir := t.TempDir()
	store, err := blob.Open(dir, blob.Options{SmallLimit: 1 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ref, err := store.PutBytes(make([]byte, 3<<20)) // loose: not read at a start
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Flush(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "loose", ref.Digest.String())
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[2<<20] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := &scrubber{blobs: newRecentBlobs(store), every: 10 * time.Minute, slog: quiet()}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = s.run(ctx) }()
		time.Sleep(time.Second)
		if s.passes.Load() != 0 || !store.Has(ref.Digest) {
			t.Error("it was read in one go")
		}
		time.Sleep(2 * time.Minute)
		if s.passes.Load() != 1 || store.Has(ref.Digest) || store.Corrupt() != 1 {
			t.Errorf("%d passes, still here: %v", s.passes.Load(), store.Has(ref.Digest))
		}
		cancel()
		<-ended
	})
	select {
	case <-store.Hurt():
	default:
		t.Error("nobody was told")
	}
}
