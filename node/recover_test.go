package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/backup"
	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// serve is run for a node that may have to rejoin: as the daemon does.
func (g *gateway) serve() {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	go func() { ended <- Serve(ctx, g.cfg, Options{Version: "test", Patience: time.Minute, Log: log}) }()
	g.stop = func() {
		g.stop = nil
		cancel()
		if err := <-ended; err != nil {
			g.t.Errorf("%s ended with %v", g.cfg.Name, err)
		}
	}
	eventually(g.t, func() error { _, err := g.status(); return err })
}

func (g *gateway) recover() Recovered {
	g.t.Helper()
	r, err := OpenRecovery(g.t.Context(), g.cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	done, err := r.Do()
	if err = errors.Join(err, r.Close()); err != nil {
		g.t.Fatal(err)
	}
	return done
}

// By mistake two of three are recovered, each for itself, and both go on. When
// they meet, one of the two lives yields to the other: one cluster, and what
// the other had is kept aside. The third was never told.
func TestPromise_Converge_TwoRecoveredNodesBecomeOneCluster(t *testing.T) {
	t.Parallel()
	g := trio(t)
	g[0].write("a.xml", "before\n")
	everywhere(t, "a.xml", "before\n", g[:]...)
	for _, n := range g {
		n.cfg.Listen = n.address() // they are found where they were
	}
	for _, n := range g {
		n.stop()
	}
	g[0].recover()
	g[0].serve()
	g[0].write("zero.xml", "of the one\n")
	everywhere(t, "zero.xml", "of the one\n", g[0])
	eventually(t, func() error { return inTheLog(g[0], 2) })
	g[0].stop()

	g[1].recover()
	g[1].serve()
	g[1].write("one.xml", "of the other\n")
	eventually(t, func() error { return inTheLog(g[1], 2) })
	g[0].serve()
	g[2].serve()
	waitVoters(t, g[:], 3)
	eventually(t, func() error { // what is written before has no place in the life that goes on
		for _, n := range g {
			if s, err := n.status(); err != nil || len(s.Trees) == 0 || s.Trees[0].Applied < s.Revision || len(s.Trees[0].Notices) > 0 {
				return errors.Join(err, errors.New(n.cfg.Name+" has not caught up"))
			}
		}
		return nil
	})
	g[2].write("end.xml", "of all\n")
	everywhere(t, "end.xml", "of all\n", g[:]...)
	everywhere(t, "a.xml", "before\n", g[:]...)
	won, lost, winner, loser := "zero.xml", "one.xml", g[0], g[1]
	eventually(t, func() error { // the third has what won: it had neither
		if g[2].reads("zero.xml", "of the one\n") == nil {
			return nil
		}
		err := g[2].reads("one.xml", "of the other\n")
		if err == nil {
			won, lost, winner, loser = "one.xml", "zero.xml", g[1], g[0]
		}
		return err
	})
	eventually(t, func() error {
		for _, n := range g {
			if _, err := os.Stat(n.cfg.Trees[0].Path + "/" + won); err != nil {
				return err
			}
			if _, err := os.Stat(n.cfg.Trees[0].Path + "/" + lost); err == nil {
				return errors.New(lost + " still stands on " + n.cfg.Name)
			}
		}
		return nil
	})
	eventually(t, func() error {
		s, err := loser.status()
		if err == nil && s.Trees[0].Conflicts != 1 {
			err = fmt.Errorf("the life that yielded kept aside: %+v", s.Trees)
		}
		return err
	})
	if s, err := winner.status(); err != nil || s.Trees[0].Conflicts != 0 {
		t.Errorf("the life that goes on kept aside: %+v, %v", s.Trees, err)
	}
	if _, err := os.Stat(string(dataDir(g[2].cfg.DataDir).oldRaft(2 << 32))); err != nil {
		t.Errorf("the third did not keep its log: %v", err)
	}
}

// A survivor goes on running while the cluster is recovered beside it: it hears of that and rejoins in its own process, without an operator.
func TestPromise_Available_ARunningSurvivorRejoins(t *testing.T) {
	t.Parallel()
	g := trio(t)
	g[0].write("a.xml", "before\n")
	everywhere(t, "a.xml", "before\n", g[:]...)
	for _, n := range g {
		n.cfg.Listen = n.address()
	}
	for _, n := range g {
		n.stop()
	}
	g[0].recover()
	g[2].serve()
	g[2].write("alone.xml", "without a quorum\n")
	r, err := OpenRecovery(t.Context(), g[1].cfg) // two of three voters are no lost majority
	if err != nil {
		t.Fatal(err)
	}
	var alive *AliveError
	if _, err := r.Do(); !errors.As(err, &alive) || alive.Alive != 2 {
		t.Errorf("recover beside a voter that answers: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	g[0].serve()
	eventually(t, func() error {
		s, err := g[2].status()
		if err == nil && (s.Incarnation != 2 || s.Leader == "" || len(s.Trees) == 0 || s.Trees[0].Conflicts != 1 || len(s.Trees[0].Notices) > 0) {
			err = errors.New("it has not rejoined")
		}
		return err
	})
	g[2].write("b.xml", "after\n")
	everywhere(t, "b.xml", "after\n", g[0], g[2])
	if _, err := os.Stat(g[2].cfg.Trees[0].Path + "/alone.xml"); err == nil {
		t.Error("what the recovered cluster does not hold still stands")
	}
	if s, err := g[0].status(); err != nil || len(s.Members) != 3 {
		t.Errorf("members %+v, %v", s.Members, err)
	}
}

func inTheLog(g *gateway, revision uint64) error {
	s, err := g.status()
	if err == nil && s.Revision < revision {
		err = errors.New("not yet committed")
	}
	return err
}

// The power fails in the middle of recover: the next start completes it, or
// finds everything as it was.
func TestRecoverIsInterrupted(t *testing.T) {
	t.Parallel()
	g := trio(t)
	g[0].write("a.xml", "before\n")
	everywhere(t, "a.xml", "before\n", g[:]...)
	g[1].stop()
	g[2].stop()
	g[0].stop()
	d := dataDir(g[0].cfg.DataDir)
	before, err := d.readNode()
	if err != nil {
		t.Fatal(err)
	}
	// Before the step that counts: half of a new log.
	if err := os.MkdirAll(d.newRaft()+"/snapshots/half", 0o700); err != nil {
		t.Fatal(err)
	}
	done := g[0].recover()
	// After it, and before all else.
	if err := errors.Join(os.Rename(done.OldLog, d.newRaft()), d.writeNode(before)); err != nil {
		t.Fatal(err)
	}
	g[0].serve()
	if _, err := os.Stat(done.OldLog); err != nil {
		t.Errorf("the old log: %v", err)
	}
	g[0].write("b.xml", "after\n")
	eventually(t, func() error { return inTheLog(g[0], 2) })
	f, err := d.readNode()
	if err != nil || f.Incarnation.Number() != 2 || f.Trees[0].Generation != uint64(f.Incarnation) || f.Trees[0].KeepFrom != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	g[0].stop()
	if begun, err := raftstore.Begun(d.raft()); err != nil || begun != f.Incarnation {
		t.Errorf("the log is of incarnation %v, %v", begun, err)
	}
	// Nobody else votes in this life: a second recover has nothing to do.
	r, err := OpenRecovery(t.Context(), g[0].cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Do(); err == nil || !strings.Contains(err.Error(), "only voter") {
		t.Errorf("recover of a cluster that needs none: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// A node that was started again after the majority was lost does not know what
// of its log is committed. It forgets nothing of what it knew, and makes no
// backup of less than that; with its daemon stopped the backup holds all of it.
func TestPromise_NoLoss_NoBackupOfLessThanWasCommitted(t *testing.T) {
	t.Parallel()
	g := trio(t)
	g[0].write("a.xml", "committed\n")
	everywhere(t, "a.xml", "committed\n", g[:]...)
	before, err := g[0].status()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range g {
		n.stop()
	}
	last, err := readSeen(dataDir(g[0].cfg.DataDir).seen())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // starts
		g[0].serve()
		err = g[0].local(func(ctx context.Context, c pb.LocalClient) error {
			stream, err := c.Backup(ctx, &pb.BackupRequest{})
			for err == nil {
				_, err = stream.Recv()
			}
			return err
		})
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("a backup of a node that has not read its log: %v", err)
		}
		g[0].stop()
	}
	now, err := readSeen(dataDir(g[0].cfg.DataDir).seen())
	if err != nil || now.Applied < last.Applied || now.Revision < last.Revision {
		t.Errorf("known to be committed: %d (revision %d), before that %d (%d); %v", now.Applied, now.Revision, last.Applied, last.Revision, err)
	}
	var out bytes.Buffer
	if _, err := BackupStopped(t.Context(), g[0].cfg, "test", &out); err != nil {
		t.Fatal(err)
	}
	_, sum, err := backup.Read(&out, nil)
	if err != nil || sum.Revision != before.Revision || sum.Blobs == 0 {
		t.Errorf("the backup: %+v, %v; revision %d was committed", sum, err, before.Revision)
	}
}

// Between the answers and the word to go on a person may think for long: the
// others are asked again. And who was removed recovers nothing.
func TestRecoverAsksAgainAndRefusesTheRemoved(t *testing.T) {
	t.Parallel()
	g := trio(t)
	for _, n := range g {
		n.cfg.Listen = n.address()
	}
	for _, n := range g {
		n.stop()
	}
	r, err := OpenRecovery(t.Context(), g[0].cfg)
	if err != nil {
		t.Fatal(err)
	}
	g[1].serve()
	g[2].serve()
	waitVoters(t, g[1:], 2) // they answer on their ports, too
	r.asked = r.asked.Add(-askAgain - time.Second)
	var alive *AliveError
	if _, err := r.Do(); !errors.As(err, &alive) {
		t.Errorf("recovered beside a majority that came back meanwhile: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	g[0].serve()
	waitVoters(t, g[:], 3)
	// Its log says so, as it does where it hears of it before it is cut off.
	leaver := g[2].cfg
	g[2].stop()
	removed, err := dataDir(leaver.DataDir).readNode()
	if err != nil {
		t.Fatal(err)
	}
	removed.Node = "n-0000000000000000"
	if err := dataDir(leaver.DataDir).writeNode(removed); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRecovery(t.Context(), leaver); !errors.Is(err, cluster.ErrNotMember) {
		t.Errorf("a node that is no member may recover: %v", err)
	}
}
