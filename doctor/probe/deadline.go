package probe

import (
	"errors"
	"time"
)

// stepLimit is how long one call into a filesystem may take before it counts
// as hung.
const stepLimit = 5 * time.Second

// errHung: a call into a filesystem has not come back.
var errHung = errors.New("no answer")

// within runs fn, which may hang for ever, and waits for it for as long as d.
func within[T any](d time.Duration, fn func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	ch := make(chan result, 1) // a late answer finds nobody, and is dropped
	go func() {
		v, err := fn()
		ch <- result{v, err}
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case r := <-ch:
		return r.v, r.err
	case <-timer.C:
		var none T
		return none, errHung
	}
}
