package raftstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	gproto "google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func raise(to uint32) *pb.Command {
	return &pb.Command{Format: Format, Do: &pb.Command_SetFormat{SetFormat: &pb.SetFormat{Format: to}}}
}

// knowing is put for a member that understands formats up to one.
func knowing(id string, format uint32) *pb.Command {
	c := put(id)
	c.GetPutMember().Member.Format = format
	return c
}

func TestNextFormat(t *testing.T) {
	member := func(id string, format uint32) cluster.Member {
		return cluster.Member{ID: cluster.NodeID(id), Format: format}
	}
	for _, c := range []struct {
		name           string
		active, newest uint32
		members        []cluster.Member
		to             uint32
		waits          string
	}{
		{"nobody", 1, 2, nil, 1, ""},
		{"all of the same age", 1, 1, []cluster.Member{member("a", 1), member("b", 0)}, 1, ""},
		{"one is old", 1, 2, []cluster.Member{member("a", 2), member("b", 1)}, 1, "b"},
		{"one has never said anything", 1, 2, []cluster.Member{member("a", 2), member("b", 0)}, 1, "b"},
		{"all are new", 1, 2, []cluster.Member{member("a", 2), member("b", 2)}, 2, ""},
		{"raised already", 2, 2, []cluster.Member{member("a", 2), member("b", 2)}, 2, ""},
		{"an old leader", 1, 1, []cluster.Member{member("a", 1), member("b", 2)}, 1, ""},
		{"as far as all can go", 1, 4, []cluster.Member{member("a", 4), member("b", 3)}, 3, "b"},
		{"never back", 3, 4, []cluster.Member{member("a", 4), member("b", 2)}, 3, "b"},
	} {
		to, waits := NextFormat(c.active, c.newest, c.members)
		ids := ""
		for _, m := range waits {
			ids += string(m.ID)
		}
		if to != c.to || ids != c.waits {
			t.Errorf("%s: to %d, waits for %q; want %d, %q", c.name, to, ids, c.to, c.waits)
		}
	}
}

// A format that somebody does not understand is not set, whoever asks: the
// machine checks at the command's own place in the log.
func TestPromise_Order_FormatRaisedOnlyWhenAllUnderstand(t *testing.T) {
	m := founded()
	wantCode(t, m.Apply(raise(0)), CodeMalformed)
	wantCode(t, m.Apply(raise(Format)), Done)
	for _, id := range []string{"n-1", "n-2"} {
		mustDo(t, m, knowing(id, Newest+1))
	}
	wantCode(t, m.Apply(raise(Newest+1)), CodeFormat) // n-3 has said nothing
	if m.Ahead() != 0 || m.Format() != Format {
		t.Fatalf("ahead %d, active %d", m.Ahead(), m.Format())
	}
	mustDo(t, m, addTree("tenants")) // it goes on
}

// A machine that meets a format that it does not know stops where it stands.
func TestPromise_Order_MachineStopsBeforeWhatItDoesNotKnow(t *testing.T) {
	m := founded()
	for _, id := range []string{"n-1", "n-2", "n-3"} {
		mustDo(t, m, knowing(id, Newest+1))
	}
	mustCommit(t, m, changeset(1, manifest.PerPath, write("d", 0, dir)))
	before := snapshotOf(t, m)
	wantCode(t, m.Apply(raise(Newest+1)), CodeFormat)
	if m.Ahead() != Newest+1 {
		t.Fatalf("ahead %d", m.Ahead())
	}
	wantCode(t, m.Apply(propose(changeset(2, manifest.PerPath, write("e", 0, dir)))), CodeFormat)
	wantCode(t, m.Apply(addTree("tenants")), CodeFormat)
	if !bytes.Equal(before, snapshotOf(t, m)) {
		t.Fatal("the state has changed behind a format that is not known")
	}
	// Nor does it take over a snapshot of that format.
	newer := founded()
	newer.format = Newest + 1
	var buf bytes.Buffer
	if _, err := newer.Freeze().WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	var unknown *NewerError
	if err := NewMachine().Restore(&buf); !errors.As(err, &unknown) || unknown.Format != Newest+1 || !strings.Contains(err.Error(), "install the version") {
		t.Fatalf("restore: %v", err)
	}
}

func TestSnapshotIsWrittenInTheActiveFormat(t *testing.T) {
	m := founded()
	header := func(b []byte) uint32 {
		rec, err := newSnapshotReader(bytes.NewReader(b)).next()
		if err != nil {
			t.Fatal(err)
		}
		return rec.GetHeader().GetFormat()
	}
	if got := header(snapshotOf(t, m)); got != Format {
		t.Fatalf("format %d, the active one is %d", got, Format)
	}
	for _, id := range []string{"n-1", "n-2", "n-3"} {
		mustDo(t, m, knowing(id, Newest))
	}
	mustDo(t, m, raise(Newest))
	if got := header(snapshotOf(t, m)); got != Newest {
		t.Fatalf("format %d, the active one is %d", got, Newest)
	}
	if got := restored(t, snapshotOf(t, m)).Format(); got != Newest {
		t.Fatalf("restored to format %d", got)
	}
}

// A log that a newer version has raised is refused without being changed,
// whether the log or a snapshot says so.
func TestPeekRefusesANewerLogAndChangesNothing(t *testing.T) {
	c := newTestCluster(t)
	s := c.found(1)[0]
	c.close(s)
	dir := c.config("n-1").Dir
	if p, err := Peek(dir); err != nil || p.Format != Format {
		t.Fatalf("%+v, %v", p, err)
	}
	if p, err := Peek(filepath.Join(dir, "none")); err != nil || p.Format != Format {
		t.Fatalf("a missing directory: %+v, %v", p, err)
	}
	disk, err := openDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	last, err := disk.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	store := func(cmd *pb.Command) {
		t.Helper()
		last++
		entry, err := gproto.Marshal(cmd)
		if err != nil {
			t.Fatal(err)
		}
		if err := disk.StoreLog(&raft.Log{Index: last, Term: 9, Type: raft.LogCommand, Data: entry, AppendedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	// An attempt that the machine has refused is no raise: this node goes on.
	store(raise(Newest + 1))
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err := Peek(dir); err != nil || p.Format != Format {
		t.Fatalf("after a refused raise: %+v, %v", p, err)
	}
	if disk, err = openDisk(dir); err != nil {
		t.Fatal(err)
	}
	store(&pb.Command{Format: Newest + 1, Do: &pb.Command_Noop{Noop: &pb.Noop{}}})
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	before := sums(t, dir)
	var newer *NewerError
	if _, err := Peek(dir); !errors.As(err, &newer) || newer.Format != Newest+1 {
		t.Fatalf("the log: %v", err)
	}
	if after := sums(t, dir); after != before {
		t.Fatalf("looking has changed %s into %s", before, after)
	}

	// The same from a snapshot.
	m := founded()
	m.format = Newest + 1
	other := t.TempDir()
	putSnapshot(t, other, 9, m)
	if _, err := Peek(other); !errors.As(err, &newer) {
		t.Fatalf("the snapshot: %v", err)
	}
}

// sums describes all files of a directory.
func sums(t *testing.T, dir string) (out string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		sum := sha256.Sum256(b)
		out += path + " " + string(sum[:4]) + "\n"
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Under Raft, a log that was raised too far tells the node, and nothing is
// reached any more.
func TestStoreTellsThatItIsOutdated(t *testing.T) {
	c := newTestCluster(t)
	s := c.found(1)[0]
	c.leader([]*Store{s})
	m := member("n-1")
	m.Format, m.Epoch = Newest+1, m.Epoch+1
	c.do(s, &pb.Command{Do: &pb.Command_PutMember{PutMember: &pb.PutMember{Member: FromMember(m)}}})
	if _, err := s.Do(c.ctx(), raise(Newest+1)); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-s.Outdated():
		if n != Newest+1 {
			t.Fatalf("told of format %d", n)
		}
	case <-c.ctx().Done():
		t.Fatal("not told")
	}
	reached := s.fsm.applied.Load()
	if out, err := s.Do(c.ctx(), noop()); err != nil || out.GetCode() != uint32(CodeFormat) || s.fsm.applied.Load() != reached {
		t.Fatalf("%v, %v, applied %d after %d", out, err, s.fsm.applied.Load(), reached)
	}
	c.close(s)
	var newer *NewerError
	if _, err := Replay(c.config("n-1").Dir, 0, 0, nil); !errors.As(err, &newer) { // for recover
		t.Fatalf("replayed: %v", err)
	}
}

// While the active format is the first, every version has to come to the same
// state from the same commands, byte for byte: that is what lets versions mix,
// and snapshots go from one to another. `make test` runs this with the next
// version as well (-tags gatesync_nextformat). The digest changes only with
// this scenario; where it changes with the code, old members disagree.
func TestPromise_Order_EveryVersionComesToTheSameState(t *testing.T) {
	m := founded()
	mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{
		ClusterId: "c-1", CaCertPem: ca("old"), CaKeyPem: []byte("key of old"),
	}}})
	mustDo(t, m, knowing("n-1", 1))
	mustDo(t, m, putCA("new"))
	mustCommit(t, m, changeset(1, manifest.Atomic, write("d", 0, dir), write("d/f", 0, file("1"))))
	mustCommit(t, m, changeset(2, manifest.PerPath, write("d/f", 1, file("2")), remove("d/gone", 7)))
	mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: "n-3"}}})
	sum := sha256.Sum256(snapshotOf(t, m))
	const want = "44e6841b9106e5aa"
	if got := hex.EncodeToString(sum[:8]); got != want {
		t.Errorf("the state is %s, want %s", got, want)
	}
}

// Who was removed is known before the log is open, from the snapshot and from
// what stands behind it.
func TestPeekKnowsWhoWasRemoved(t *testing.T) {
	m := founded()
	mustDo(t, m, knowing("n-2", Newest))
	mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: "n-2"}}})
	dir := t.TempDir()
	putSnapshot(t, dir, 9, m)
	disk, err := openDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := gproto.Marshal(&pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: "n-3"}}})
	if err == nil {
		err = disk.StoreLog(&raft.Log{Index: 10, Term: 9, Type: raft.LogCommand, Data: entry})
	}
	if err = errors.Join(err, disk.Close()); err != nil {
		t.Fatal(err)
	}
	p, err := Peek(dir)
	if err != nil || !p.Removed["n-2"] || !p.Removed["n-3"] || p.Removed["n-1"] {
		t.Errorf("%v, %v", p.Removed, err)
	}
}
