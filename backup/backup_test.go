package backup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// state is a machine with some revisions whose content is in blobs.
func state(t testing.TB, blobs *blob.Store) *raftstore.Machine {
	t.Helper()
	m := raftstore.NewMachine()
	do := func(c *pb.Command) {
		t.Helper()
		c.Format, c.TimeNs = raftstore.Format, 1
		if err := raftstore.OutcomeErr(m.Apply(c)); err != nil {
			t.Fatal(err)
		}
	}
	do(&pb.Command{Do: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: "c-1", CaKeyPem: []byte("key")}}})
	do(&pb.Command{Do: &pb.Command_PutMember{PutMember: &pb.PutMember{Member: &pb.Member{Id: "n-1", Name: "gw1", Store: "s-1"}}}})
	do(&pb.Command{Do: &pb.Command_PutTree{PutTree: &pb.PutTree{Name: "server", Id: "t-1", Generation: 1}}})
	m.SetVoters([]string{"n-1"})
	expect := map[manifest.Path]manifest.Revision{}
	for i, f := range []struct {
		path    manifest.Path
		content string
	}{{"a", "one"}, {"empty", ""}, {"a", "two, and the first is history"}, {"big", strings.Repeat("0123456789", 40_000)}} {
		ref, err := blobs.Put(strings.NewReader(f.content))
		if err != nil {
			t.Fatal(err)
		}
		cs := manifest.Changeset{
			ID: manifest.ChangesetID{Node: "n-1", Seq: uint64(i) + 1}, Tree: "server",
			Receipts: []manifest.Receipt{{Node: "n-1", Store: "s-1"}},
			Changes: []manifest.Change{{Path: f.path, Expect: expect[f.path], New: manifest.Entry{
				Kind: manifest.File, Mode: 0o644, Size: ref.Size, Digest: ref.Digest,
			}}},
		}
		do(&pb.Command{Do: &pb.Command_Propose{Propose: proto.FromChangeset(cs)}})
		expect[f.path] = m.Revision()
	}
	if m.Revision() != 4 {
		t.Fatalf("revision %d", m.Revision())
	}
	return m
}

func openStore(t testing.TB) *blob.Store {
	t.Helper()
	s, err := blob.Open(t.TempDir(), blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func written(t testing.TB, m *raftstore.Machine, blobs Blobs) ([]byte, Summary) {
	t.Helper()
	var out bytes.Buffer
	sum, err := Write(context.Background(), &out, &pb.BackupHeader{Node: "gw1"}, m.Freeze(), blobs)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), sum
}

func TestPromise_NoLossABackupHoldsEverything(t *testing.T) {
	blobs, into := openStore(t), openStore(t)
	m := state(t, blobs)
	file, sum := written(t, m, blobs)
	if sum.Blobs != 4 || sum.Lacking != 0 || sum.Revision != 4 || sum.Cluster != "c-1" {
		t.Errorf("%+v", sum)
	}
	got, read, err := Read(bytes.NewReader(file), func(ref manifest.BlobRef, r io.Reader) error { return into.PutKnown(ref, r) })
	if err != nil || read != sum {
		t.Fatalf("%+v, %v; written %+v", read, err, sum)
	}
	var a, b bytes.Buffer
	_, _ = m.Freeze().WriteTo(&a)
	_, _ = got.Machine.Freeze().WriteTo(&b)
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the state that came out is another")
	}
	if into.Stats().Blobs != 4 {
		t.Errorf("%d blobs came out", into.Stats().Blobs)
	}
}

// Whatever byte is changed, wherever the file ends, and whatever stands behind
// it: it is refused.
func TestADamagedBackupIsRefused(t *testing.T) {
	blobs := openStore(t)
	file, _ := written(t, state(t, blobs), blobs)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		bad := bytes.Clone(file)
		at := rng.IntN(len(bad))
		if i < 200 {
			at = i // the beginning, where every byte means something
		}
		bad[at] ^= 1 << rng.IntN(8)
		if _, _, err := Read(bytes.NewReader(bad), nil); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a changed byte at %d of %d: %v", at, len(bad), err)
		}
		if _, _, err := Read(bytes.NewReader(file[:at]), nil); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d: %v", at, err)
		}
	}
	if _, _, err := Read(bytes.NewReader(append(bytes.Clone(file), 0)), nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("something behind the end: %v", err)
	}
}

// A present path whose content is not here fails the backup; a past one is listed.
func TestABackupSaysWhatItLacks(t *testing.T) {
	blobs := openStore(t)
	m := state(t, blobs)
	past := manifest.DigestOf([]byte("one"))
	_, sum := written(t, m, without{blobs, past})
	if sum.Lacking != 1 || sum.Blobs != 3 {
		t.Errorf("%+v", sum)
	}
	present := manifest.DigestOf([]byte("two, and the first is history"))
	var lack *LackError
	_, err := Write(t.Context(), io.Discard, &pb.BackupHeader{}, m.Freeze(), without{blobs, present})
	if !errors.As(err, &lack) || lack.Path != "a" || lack.Count != 1 {
		t.Errorf("%v", err)
	}
}

// A failure of whoever takes the blobs is not the backup's fault.
func TestAFailingStoreIsNoDamage(t *testing.T) {
	blobs := openStore(t)
	file, _ := written(t, state(t, blobs), blobs)
	full := errors.New("the disk is full")
	_, _, err := Read(bytes.NewReader(file), func(manifest.BlobRef, io.Reader) error { return full })
	if !errors.Is(err, full) || errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
}

// without is a store that lacks one blob.
type without struct {
	Blobs
	digest manifest.Digest
}

func (w without) Has(d manifest.Digest) bool { return d != w.digest && w.Blobs.Has(d) }
