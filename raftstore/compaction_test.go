package raftstore

import (
	"errors"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

// A leader reads old entries for a follower that lags, while Raft deletes that
// very range behind a snapshot: what has just been deleted is not damage.
func TestEntriesThatAreDeletedMeanwhileAreNoDamage(t *testing.T) {
	d, err := openDisk(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	const n = 2000
	var all []*raft.Log
	for i := uint64(1); i <= n; i++ {
		all = append(all, &raft.Log{Index: i, Term: 1, Type: raft.LogNoop, Data: make([]byte, 100)})
	}
	if err := d.StoreLogs(all); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			var e raft.Log
			for {
				select {
				case <-stop:
					return
				default:
				}
				first, last := d.ends()
				for i := first; i < first+64 && i <= last; i++ {
					err := d.GetLog(i, &e)
					if errors.Is(err, raft.ErrLogNotFound) {
						break
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for i := uint64(1); i < n-100 && !t.Failed(); i += 10 {
		if err := d.DeleteRange(i, i+9); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	readers.Wait()
}
