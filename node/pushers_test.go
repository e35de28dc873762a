package node

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// targetsInLog is a log with members and targets, which a machine keeps.
type targetsInLog struct {
	*raftstore.Machine
	leader cluster.NodeID
	failed error
}

func (l *targetsInLog) Do(_ context.Context, cmd *pb.Command) (*pb.Outcome, error) {
	if l.failed != nil {
		return nil, l.failed
	}
	cmd.Format = l.Format()
	return l.Apply(cmd), nil
}
func (l *targetsInLog) Leader() (cluster.NodeID, bool)   { return l.leader, true }
func (l *targetsInLog) Watch() (<-chan struct{}, func()) { return make(chan struct{}), func() {} }
func (l *targetsInLog) say(t testing.TB, cmd *pb.Command) {
	t.Helper()
	out, err := l.Do(context.Background(), command(cmd))
	if err == nil {
		err = raftstore.OutcomeErr(out)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// pusherBed is a leader, n-1, of three members, on a clock of its own.
type pusherBed struct {
	*pushers
	t    *testing.T
	log  *targetsInLog
	at   time.Time
	mine []*pb.TargetState
}

func newPusherBed(t *testing.T, targets int) *pusherBed {
	b := &pusherBed{t: t, at: time.Unix(1000, 0), log: &targetsInLog{Machine: raftstore.NewMachine(), leader: "n-1"}}
	b.log.SetVoters([]string{"n-1", "n-2", "n-3"})
	for i := 1; i <= 3; i++ {
		b.log.say(t, &pb.Command{Do: &pb.Command_PutMember{PutMember: &pb.PutMember{Member: &pb.Member{
			Id: fmt.Sprint("n-", i), Name: fmt.Sprint("gw", i), Format: raftstore.Newest,
		}}}})
	}
	b.log.say(t, &pb.Command{Do: &pb.Command_SetFormat{SetFormat: &pb.SetFormat{Format: raftstore.Newest}}})
	for i := range targets {
		b.log.say(t, &pb.Command{Do: &pb.Command_PutTarget{PutTarget: raftstore.FromTarget(cluster.Target{
			Name: fmt.Sprint("t", i), Address: fmt.Sprint("t:", i), Delete: "held",
		})}})
	}
	now := func() time.Time { return b.at }
	ps := &peers{self: "n-1", now: now, heard: map[cluster.NodeID]*heard{}}
	b.pushers = &pushers{
		self: "n-1", log: b.log, peers: ps, own: func() []*pb.TargetState { return b.mine }, logger: slog.New(slog.DiscardHandler),
		now: now, since: b.at, seen: map[string]*pushedBy{},
	}
	b.hear("n-2")
	b.hear("n-3")
	return b
}

// hear has a member say hello, with what it says of targets.
func (b *pusherBed) hear(id cluster.NodeID, said ...*pb.TargetState) {
	b.peers.heard[id] = &heard{at: b.at, state: &pb.NodeState{Id: string(id), Raft: true, Targets: said}}
}

func (b *pusherBed) pass(d time.Duration) { b.at = b.at.Add(d) }

// who names the pushers of all targets.
func (b *pusherBed) who() (out string) {
	b.step(context.Background())
	for _, t := range b.log.Targets() {
		out += fmt.Sprintf("%s:%s/%d ", t.Name, t.Pusher, t.Epoch)
	}
	return out
}

func (b *pusherBed) want(what, want string) {
	b.t.Helper()
	if got := b.who(); got != want {
		b.t.Fatalf("%s: %s, want %s", what, got, want)
	}
}

// Targets are spread; who dies loses his to the others, and gets none back for it.
func TestPushersAreSpreadAndReplaced(t *testing.T) {
	b := newPusherBed(t, 4)
	b.want("at first", "t0:n-1/1 t1:n-2/2 t2:n-3/3 t3:n-1/4 ")
	all := func() {
		b.hear("n-2", &pb.TargetState{Name: "t1", Epoch: 2, State: "current"})
		b.mine = []*pb.TargetState{{Name: "t0", Epoch: 1, State: "current"}, {Name: "t3", Epoch: 4, State: "current"}}
	}
	for range 4 { // n-3 falls silent
		b.pass(time.Second)
		all()
		b.want("a moment of silence", "t0:n-1/1 t1:n-2/2 t2:n-3/3 t3:n-1/4 ")
	}
	b.pass(time.Second)
	all()
	b.want("n-3 is dead", "t0:n-1/1 t1:n-2/2 t2:n-2/5 t3:n-1/4 ")
	b.hear("n-3")
	b.want("it is back", "t0:n-1/1 t1:n-2/2 t2:n-2/5 t3:n-1/4 ")
	// A new leader has no opinion on anybody's past.
	b.pass(time.Hour)
	b.since = b.at
	b.want("a new leader", "t0:n-1/1 t1:n-2/2 t2:n-2/5 t3:n-1/4 ")
	// A visitor pushes nothing, and whoever takes no part in Raft neither.
	b.visit = true
	b.hear("n-2")
	b.hear("n-3")
	b.peers.heard["n-3"].state.Raft = false
	b.want("it only visits", "t0:n-2/6 t1:n-2/2 t2:n-2/5 t3:n-2/7 ")
}

// Who cannot reach a target gives it up to somebody who has not tried; where
// nobody can, it stays where it is for minutes.
func TestPushersThatCannotReach(t *testing.T) {
	b := newPusherBed(t, 1)
	b.want("at first", "t0:n-1/1 ")
	failing := func(epoch uint64, ms uint64) *pb.TargetState {
		return &pb.TargetState{Name: "t0", Epoch: epoch, State: "unreachable", FailingMs: ms}
	}
	b.mine = []*pb.TargetState{failing(1, 9000)}
	b.want("for a while", "t0:n-1/1 ")
	b.mine = []*pb.TargetState{failing(1, 11000)}
	b.want("for too long", "t0:n-2/2 ")
	b.hear("n-2", failing(1, 60000))
	b.want("it speaks of another epoch", "t0:n-2/2 ")
	b.hear("n-2", failing(2, 11000))
	b.want("the second one", "t0:n-3/3 ")
	for range 300 {
		b.pass(time.Second)
		b.hear("n-2")
		b.hear("n-3", failing(3, 11000))
		b.want("all have tried", "t0:n-3/3 ")
	}
	b.pass(triedFor)
	b.hear("n-2")
	b.hear("n-3", failing(3, 11000))
	b.want("much later", "t0:n-1/4 ")
	// A pusher that lives and says nothing of its target does not push.
	for range 35 {
		b.pass(time.Second)
		b.hear("n-2")
		b.hear("n-3")
		b.mine = nil
		b.who()
	}
	if got := b.who(); got != "t0:n-2/5 " {
		t.Errorf("after a long silence about it: %s", got)
	}
}

// What the log does not take is tried again.
func TestPushersWithoutALog(t *testing.T) {
	b := newPusherBed(t, 2)
	b.log.failed = cluster.ErrNoQuorum
	b.want("no quorum", "t0:/0 t1:/0 ")
	b.log.failed = nil
	b.want("again", "t0:n-1/1 t1:n-2/2 ")
}
