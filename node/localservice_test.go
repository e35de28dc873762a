package node

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// memberLog is a log that knows members, and has no quorum.
type memberLog struct {
	localLog
	members []cluster.Member
}

func (l memberLog) Members() []cluster.Member   { return l.members }
func (memberLog) Quorum() bool                  { return false }
func (memberLog) Revision() manifest.Revision   { return 7 }
func (memberLog) Barrier(context.Context) error { return errors.New("nobody asks without a quorum") }

func peersOf(members ...cluster.Member) *peers {
	return &peers{
		self: "n-1", now: time.Now, heard: map[cluster.NodeID]*heard{}, strangers: func() bool { return false },
		members: func() []cluster.Member { return members },
	}
}

// Members answer as they like; people and programs get them in one order.
func TestWaitNamesMembersInOrder(t *testing.T) {
	all := []cluster.Member{{ID: "n-5", Name: "gw3"}, {ID: "n-7", Name: "gw1"}, {ID: "n-6", Name: "gw2"}}
	s := &localService{self: "n-1", log: memberLog{members: all}, peers: peersOf(all...)}
	res, err := s.waitAll(t.Context(), 7, nil)
	if err != nil || !slices.Equal(res.GetDead(), []string{"gw1", "gw2", "gw3"}) {
		t.Errorf("%q, %v", res.GetDead(), err)
	}
}

// A node takes the others' word that it was removed, unless one of them goes on
// speaking to it.
func TestDisowned(t *testing.T) {
	gw2, gw3 := cluster.Member{ID: "n-2", Name: "gw2"}, cluster.Member{ID: "n-3", Name: "gw3"}
	p := peersOf(gw2, gw3)
	for _, step := range []struct {
		what string
		do   func()
		want bool
	}{
		{"nobody answers", func() { p.heard["n-2"] = &heard{err: errors.New("connection refused")} }, false},
		{"one refuses it", func() { p.heard["n-2"] = &heard{at: time.Now(), err: cluster.ErrNotMember} }, true},
		{"one refuses it, the other one speaks to it", func() { p.heard["n-3"] = &heard{at: time.Now()} }, false},
		{"both refuse it", func() { p.heard["n-3"].err = cluster.ErrNotMember }, true},
		{"they take it back", func() { p.heard["n-2"].err, p.heard["n-3"].err = nil, nil }, false},
	} {
		step.do()
		if got := p.disowned(); got != step.want {
			t.Errorf("%s: disowned is %t", step.what, got)
		}
	}
}

// events is a stream that keeps what is sent.
type events struct {
	grpc.ServerStreamingServer[pb.VerifyEvent]
	ctx context.Context
	all []*pb.VerifyEvent
}

func (e *events) Context() context.Context      { return e.ctx }
func (e *events) Send(ev *pb.VerifyEvent) error { e.all = append(e.all, ev); return nil }
func (e *events) summary() *pb.Summary          { return e.all[len(e.all)-1].GetSummary() }

// Without a quorum a verify does not wait. What the node knows it compares, and
// says so; a node that has learnt nothing since its start says that.
func TestVerifyWithoutAQuorum(t *testing.T) {
	read := false
	s := &localService{log: memberLog{}, peers: peersOf(), trees: &treeSet{}, readAll: func() bool { return read }}
	out := &events{ctx: t.Context()}
	if err := s.Verify(&pb.VerifyRequest{}, out); !errors.Is(err, cluster.ErrNoQuorum) || len(out.all) != 0 {
		t.Errorf("nothing is known: %v, %d events", err, len(out.all))
	}
	blobs, err := openBlobs(dataDir(t.TempDir()), newGateway(t, "gw1").cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer blobs.Close()
	read, s.blobs = true, &recentBlobs{Store: blobs}
	if err := s.Verify(&pb.VerifyRequest{}, out); err != nil || !out.summary().GetPast() || out.summary().GetRevision() != 7 {
		t.Errorf("%v, %v", out.all, err)
	}
}
