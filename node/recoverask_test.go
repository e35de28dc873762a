package node

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/gatesync/gatesync/transport"
)

// `recover` takes for lost only who is not there. Who answers and does not
// accept this node may be one of a living majority.
func TestWhoAnswersIsNotGone(t *testing.T) {
	for _, c := range []struct {
		err  error
		gone bool
	}{
		{&transport.UnreachableError{Addr: "a:1", Err: errors.New("connection refused")}, true},
		{&transport.NotGatesyncError{Addr: "a:1", Err: errors.New("HTTP")}, true},
		{&transport.PeerMismatchError{Addr: "a:1"}, true},
		{fmt.Errorf("dial: %w", context.DeadlineExceeded), true},
		{&transport.WrongClusterError{Addr: "a:1", Ours: "c-1", Theirs: "c-2"}, true},
		{&transport.WrongClusterError{Addr: "a:1", Ours: "c-1", Theirs: "c-1"}, false}, // its CA was replaced
		{&transport.WrongClusterError{Addr: "a:1", Ours: "c-1"}, false},
		{&transport.ClockError{Addr: "a:1"}, false}, // this node's certificate has expired
		{errors.New("busy"), false},
	} {
		if got := isGone(c.err, "c-1"); got != c.gone {
			t.Errorf("%T %v: gone is %v", c.err, c.err, got)
		}
	}
}
