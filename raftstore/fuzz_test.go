package raftstore

import (
	"bytes"
	"encoding/binary"
	"testing"

	gproto "google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// FuzzApply: no bytes in the log make the machine panic, or bring it into a
// state that no snapshot can carry.
func FuzzApply(f *testing.F) {
	for _, cmd := range []*pb.Command{
		put("n-1"), addTree("server"), noop(), raise(Newest), raise(Newest + 1), knowing("n-2", Newest+1), putCA("new"), useCA("new"), dropCA("new"),
		{Format: Format, Do: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: "c-1", CaCertPem: ca("old"), CaKeyPem: []byte("key")}}},
		propose(changeset(1, manifest.Atomic, write("d", 0, dir), write("d/f", 0, file("1")))),
		sees("n-1", "a", at("n-2", "b")), target("gw9", "gw9:7950"), assign("gw9", "n-1", 0), untarget("gw9"),
	} {
		entry, err := gproto.Marshal(cmd)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(entry, []byte{})
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		for _, m := range []*Machine{founded(), mounted(t)} {
			for _, entry := range [][]byte{first, second, first} {
				if out := m.ApplyEntry(entry); out == nil {
					t.Fatal("no outcome")
				}
			}
			once := snapshotOf(t, m)
			if !bytes.Equal(once, snapshotOf(t, restored(t, once))) {
				t.Fatal("restore(freeze(m)) is not m")
			}
		}
	})
}

// FuzzLog: no sequence of entries, of any length, makes the machine panic or
// lets through what no tree can hold; and a replay of it ends in the same state.
func FuzzLog(f *testing.F) {
	var log []byte
	link := func(target string) *pb.Entry {
		return &pb.Entry{Kind: 3, Mode: 0o777, Size: int64(len(target)), Target: []byte(target), Digest: digestOf(target)}
	}
	evil := propose(changeset(9, manifest.PerPath))
	for _, p := range []string{"../a", "/a", "a/../../b", "nul\x00", "", ".gatesync/marker.json", "l/below"} {
		evil.GetPropose().Changes = append(evil.GetPropose().Changes, &pb.Change{Path: []byte(p), New: proto.FromEntry(dir)})
	}
	for i, target := range []string{"../..", "/etc/passwd", "x/../../y", "inside"} {
		evil.GetPropose().Changes = append(evil.GetPropose().Changes, &pb.Change{Path: []byte{'l', byte('0' + i)}, New: link(target)})
	}
	evil.GetPropose().Changes = append(evil.GetPropose().Changes,
		&pb.Change{Path: []byte("huge"), New: &pb.Entry{Kind: 1, Size: 1<<63 - 1, Digest: digestOf("x")}},
		&pb.Change{Path: []byte("negative"), New: &pb.Entry{Kind: 1, Size: -1 << 63, Digest: digestOf("x")}})
	for _, cmd := range []*pb.Command{
		put("n-1"), addTree("server"), propose(changeset(1, manifest.Atomic, write("d", 0, dir), write("d/f", 0, file("1")))),
		evil, propose(changeset(2, manifest.PerPath, remove("d/f", 1))), noop(),
	} {
		entry, err := gproto.Marshal(cmd)
		if err != nil {
			f.Fatal(err)
		}
		log = append(binary.AppendUvarint(log, uint64(len(entry))), entry...)
	}
	f.Add(log)
	f.Fuzz(func(t *testing.T, log []byte) {
		a, b := founded(), founded()
		for _, r := range recordsOf(log) {
			_, n := binary.Uvarint(r)
			before := a.Revision()
			out := a.ApplyEntry(r[n:])
			if out == nil || a.Revision() < before || a.Revision() > before+1 {
				t.Fatalf("outcome %v, revision %d after %d", out, a.Revision(), before)
			}
			if !gproto.Equal(out, b.ApplyEntry(r[n:])) {
				t.Fatal("two machines disagree")
			}
		}
		wantSound(t, a)
		once := snapshotOf(t, a)
		if !bytes.Equal(once, snapshotOf(t, b)) || !bytes.Equal(once, snapshotOf(t, restored(t, once))) {
			t.Fatal("a replay, or a snapshot, is not the machine")
		}
	})
}

func digestOf(s string) []byte { d := manifest.DigestOf([]byte(s)); return d[:] }

// wantSound checks that a disk can hold all that the machine says.
func wantSound(t *testing.T, m *Machine) {
	t.Helper()
	for _, info := range m.Trees() {
		v, _ := m.View(info.Name)
		v.Manifest.All(func(p manifest.Path, n manifest.Node) bool {
			if err := n.Entry.ValidateAt(p); err != nil {
				t.Errorf("committed: %v", err)
			}
			if parent := p.Dir(); parent != "" && !v.Manifest.Entry(parent).IsDir() {
				t.Errorf("%q stands in no directory", p)
			}
			return true
		})
	}
}

// FuzzRestore: no bytes make Restore panic; what it accepts, it can write. The
// bytes come raw, and as the records of a snapshot whose digest is right.
func FuzzRestore(f *testing.F) {
	m := founded()
	mustCommit(f, m, changeset(1, manifest.Atomic, write("d", 0, dir), write("d/f", 0, file("1"))))
	good := snapshotOf(f, m)
	f.Add(good)
	f.Add(good[:len(good)-trailerLen(f, good)])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, in := range [][]byte{b, resealed(b)} {
			m := NewMachine()
			if m.Restore(bytes.NewReader(in)) != nil {
				continue
			}
			wantSound(t, m)
			once := snapshotOf(t, m)
			if !bytes.Equal(once, snapshotOf(t, restored(t, once))) {
				t.Fatal("restore(freeze(m)) is not m")
			}
		}
	})
}

// records cuts a snapshot into its length-prefixed records, as far as it goes.
func recordsOf(b []byte) (out [][]byte) {
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			break
		}
		out = append(out, b[:n+int(size)])
		b = b[n+int(size):]
	}
	return out
}

func trailerLen(t testing.TB, snapshot []byte) int {
	all := recordsOf(snapshot)
	if len(all) == 0 {
		t.Fatal("a snapshot of no records")
	}
	return len(all[len(all)-1])
}

// resealed appends the trailer that b's records ask for.
func resealed(b []byte) []byte {
	all := recordsOf(b)
	var whole []byte
	for _, r := range all {
		whole = append(whole, r...)
	}
	digest := manifest.DigestOf(whole)
	var out bytes.Buffer
	w := newSnapshotWriter(&out)
	w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Trailer{Trailer: &pb.SnapshotTrailer{Records: uint64(len(all)), Digest: digest[:]}}})
	_, _ = w.Finish()
	return append(whole, out.Bytes()...)
}
