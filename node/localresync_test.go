package node

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
)

// quorumOf is a log that has a quorum or not.
type quorumOf struct{ atomic.Bool }

func (q *quorumOf) Quorum() bool { return q.Load() }

// A resync rides out an election, and not a lost majority.
func TestResyncDoesNotWaitForEverWithoutAQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var q quorumOf
		ended := make(chan error, 1)
		go func() { ended <- untilNoQuorum(ctx, &q) }()
		time.Sleep(quorumWithin - time.Second)
		q.Store(true)
		time.Sleep(time.Hour)
		q.Store(false)
		select {
		case err := <-ended:
			t.Fatalf("ended with a quorum: %v", err)
		default:
		}
		lost := time.Now()
		if err := <-ended; !errors.Is(err, cluster.ErrNoQuorum) {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(lost); took > quorumWithin+time.Second {
			t.Errorf("took %s", took)
		}

		go func() { ended <- untilNoQuorum(ctx, &q) }()
		time.Sleep(time.Second)
		cancel() // the work is done
		if err := <-ended; err != nil {
			t.Errorf("the work was done, and it said %v", err)
		}
	})
}

// atRevision is a log that has come to revision 7.
type atRevision struct{ localLog }

func (atRevision) Revision() manifest.Revision { return 7 }

func TestAWitnessHasAppliedWhatItsLogHas(t *testing.T) {
	sum, err := resyncing{log: atRevision{}}.summary(t.Context())
	if err != nil || sum.GetRevision() != 7 || sum.GetApplied() != 7 {
		t.Errorf("it says %v, %v", sum, err)
	}
}
