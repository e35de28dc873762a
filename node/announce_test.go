package node

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// refusingLog takes each announcement as an entry, which tells its watchers,
// and refuses it.
type refusingLog struct {
	news    chan struct{}
	entries atomic.Int64
	err     error // instead of a refusal
}

func (l *refusingLog) Do(context.Context, *pb.Command) (*pb.Outcome, error) {
	l.entries.Add(1)
	select {
	case l.news <- struct{}{}:
	default:
	}
	time.Sleep(time.Millisecond) // a commit
	return &pb.Outcome{Code: uint32(raftstore.CodeNameTaken), Message: "taken"}, l.err
}
func (l *refusingLog) Watch() (<-chan struct{}, func())     { return l.news, func() {} }
func (l *refusingLog) Members() []cluster.Member            { return []cluster.Member{{ID: "n-1", Name: "old"}} }
func (l *refusingLog) Leader() (id cluster.NodeID, ok bool) { return "", false }

// A node is given a name that another member has: each attempt to announce it
// is an entry of the log, and an entry must not be the reason for the next one.
func TestRefusedAnnouncementsDoNotFloodTheLog(t *testing.T) {
	for what, c := range map[string]struct {
		err       error
		low, high int64
	}{
		"refused":   {nil, 10, 25},                         // an hour: 1, 2, 4 … 300 s
		"no quorum": {errors.New("no quorum"), 3500, 3601}, // a second each
	} {
		synctest.Test(t, func(t *testing.T) {
			log := &refusingLog{news: make(chan struct{}, 1), err: c.err}
			a := &announcer{self: cluster.Member{ID: "n-1", Name: "new"}, members: log, log: log, watch: log, logger: quiet()}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if err := a.run(ctx); err != nil {
				t.Error(err)
			}
			if n := log.entries.Load(); n < c.low || n > c.high {
				t.Errorf("%s: %d entries in an hour", what, n)
			}
		})
	}
}
