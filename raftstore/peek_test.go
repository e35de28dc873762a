package raftstore

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Two replacements of the CA are in the newest snapshot. The log may still hold
// their entries, or hold nothing; an older snapshot knows the first of them
// only. What signs is the newest CA, and never one that was dropped.
func TestPeekBeginsAtTheNewestSnapshot(t *testing.T) {
	commands := []*pb.Command{
		{Format: Format, Do: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: "c-1", CaCertPem: ca("a"), CaKeyPem: []byte("key of a")}}},
		putCA("b"), useCA("b"), dropCA("a"), noop(), noop(), noop(), noop(), noop(),
		putCA("c"), useCA("c"), dropCA("b"),
	}
	for what, log := range map[string]struct {
		snapshots []uint64
		trimmed   uint64
	}{
		"all entries are left":   {snapshots: []uint64{12}},
		"no entries are left":    {snapshots: []uint64{9, 12}, trimmed: 12}, // as text, 9 is behind 12
		"the second replacement": {snapshots: []uint64{9}, trimmed: 9},
	} {
		t.Run(what, func(t *testing.T) {
			dir, m := t.TempDir(), NewMachine()
			d, err := openDisk(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = d.Close() }()
			for i, cmd := range commands {
				mustDo(t, m, cmd)
				data, err := proto.Marshal(cmd)
				if err != nil {
					t.Fatal(err)
				}
				index := uint64(i) + 1
				if err := d.StoreLog(&raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: data}); err != nil {
					t.Fatal(err)
				}
				if slices.Contains(log.snapshots, index) {
					putSnapshot(t, dir, index, m)
				}
			}
			if err := errors.Join(d.DeleteRange(1, log.trimmed), d.Close()); err != nil {
				t.Fatal(err)
			}
			p, err := Peek(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Authorities; !bytes.Equal(got.Signing.Cert, ca("c")) || got.Also != nil {
				t.Errorf("peek says that %.80s signs", got.Signing.Cert)
			}
		})
	}
}

// putSnapshot leaves a snapshot in the directory of a log.
func putSnapshot(t *testing.T, dir string, index uint64, m *Machine) {
	t.Helper()
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, keepSnapshots, newRaftLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	kept := &snapshots{SnapshotStore: files, dir: dir, log: slog.New(slog.DiscardHandler), made: func(uint64) error { return nil }}
	_, encoder := raft.NewInmemTransport("n-1")
	sink, err := kept.Create(raft.SnapshotVersionMax, index, 1, raft.Configuration{}, 1, encoder)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&fsmSnapshot{index: index, frozen: m.Freeze()}).Persist(sink); err != nil {
		t.Fatal(err)
	}
}
