package blob

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// room keeps the reserve free. Asking the filesystem for every small blob
// would cost as much as writing it, so it is asked for a stretch at a time.
type room struct {
	dir     string
	reserve int64
	free    func(dir string) (int64, error)
	spare   func() bool // frees what can be done without; false where there is nothing

	mu      sync.Mutex
	granted int64 // bytes that may still be taken without asking
	asked   time.Time
}

const (
	grant    = 4 << 20
	grantFor = time.Second // others fill the disk too
)

// take answers for n bytes that are about to be written: RoomError.
func (r *room) take(n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n <= r.granted && time.Since(r.asked) < grantFor {
		r.granted -= n
		return nil
	}
	r.granted = 0
	free, err := r.free(r.dir)
	if err == nil && free-r.reserve < n && r.spare != nil && r.spare() {
		free, err = r.free(r.dir)
	}
	if err != nil {
		return err
	}
	left := free - r.reserve - n
	if left < 0 {
		return &RoomError{Dir: r.dir, Need: n, Free: free, Reserve: r.reserve}
	}
	r.granted, r.asked = min(left, grant), time.Now()
	return nil
}

// explain makes a RoomError of what the system says when the disk is full all
// the same.
func (r *room) explain(err error, n int64) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.granted = 0
	free, _ := r.free(r.dir) // for the text only
	return &RoomError{Dir: r.dir, Need: n, Free: free, Reserve: r.reserve, Cause: err}
}
