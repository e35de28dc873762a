package node

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// formatFake is a log with members and an active format.
type formatFake struct {
	watcher
	members []cluster.Member
	active  uint32
	applied []*pb.Command
}

func (f *formatFake) Members() []cluster.Member      { return f.members }
func (f *formatFake) Leader() (cluster.NodeID, bool) { return "n-1", true }
func (f *formatFake) Format() uint32                 { return f.active }
func (f *formatFake) ApplyLocal(_ context.Context, cmd *pb.Command) (*pb.Outcome, uint64, error) {
	f.applied = append(f.applied, cmd)
	return &pb.Outcome{}, 1, nil
}

func TestFormatIsRaisedOnlyWhenThereIsSomethingToRaise(t *testing.T) {
	log := &formatFake{active: raftstore.Newest, members: []cluster.Member{{ID: "n-1", Format: raftstore.Newest + 1}}}
	u := &upgrading{self: "n-1", log: log, slog: quiet()}
	if err := u.step(t.Context()); err != nil || len(log.applied) > 0 {
		t.Errorf("%v, %v", log.applied, err)
	}
}

// What a member writes in any format that is known here is let through.
func TestCommandsOfEveryKnownFormatAreForwarded(t *testing.T) {
	for format := range uint32(raftstore.Newest + 2) {
		known := format >= raftstore.Format && format <= raftstore.Newest
		if err := allowed("n-1", &pb.Command{Format: format, Do: &pb.Command_Noop{Noop: &pb.Noop{}}}); (err == nil) != known {
			t.Errorf("format %d: %v", format, err)
		}
	}
}

// Nobody but the leader raises the format or lets a new CA sign.
func TestMembersMayNotDecideForTheLeader(t *testing.T) {
	for _, cmd := range []*pb.Command{
		{Do: &pb.Command_SetFormat{SetFormat: &pb.SetFormat{Format: 99}}},
		{Do: &pb.Command_UseAuthority{UseAuthority: &pb.UseAuthority{Fingerprint: "x"}}},
	} {
		cmd.Format = raftstore.Newest
		if err := allowed("n-1", cmd); err == nil || !strings.Contains(err.Error(), "leader") {
			t.Errorf("%v: %v", cmd, err)
		}
	}
}

// A data directory whose log a newer version has raised is refused before
// anything but the lock is touched.
func TestPromise_OwnTree_DowngradeIsRefusedAtTheStart(t *testing.T) {
	g := newGateway(t, "gw1")
	if _, err := Init(t.Context(), g.cfg); err != nil {
		t.Fatal(err)
	}
	n, err := Open(g.cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.log.Barrier(t.Context()); err != nil { // it leads
		t.Fatal(err)
	}
	_, _, err = n.log.ApplyLocal(t.Context(), &pb.Command{Format: raftstore.Newest + 1, Do: &pb.Command_Noop{Noop: &pb.Noop{}}})
	if err := errors.Join(err, n.Close()); err != nil {
		t.Fatal(err)
	}
	before := contents(t, g.cfg.DataDir, g.cfg.Trees[0].Path)
	_, err = Open(g.cfg, Options{})
	var newer *raftstore.NewerError
	if !errors.As(err, &newer) || !strings.Contains(err.Error(), "install the version") {
		t.Fatalf("opened: %v", err)
	}
	delete(before, filepath.Join(g.cfg.DataDir, "lock"))
	after := contents(t, g.cfg.DataDir, g.cfg.Trees[0].Path)
	delete(after, filepath.Join(g.cfg.DataDir, "lock"))
	for path, want := range before {
		if after[path] != want {
			t.Errorf("%s was changed", path)
		}
		delete(after, path)
	}
	for path := range after {
		t.Errorf("%s was made", path)
	}
}
