package raftstore

import (
	"bytes"
	"encoding/binary"
	"testing"

	gproto "google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// FuzzApply: no bytes in the log make the machine panic, or bring it into a
// state that no snapshot can carry.
func FuzzApply(f *testing.F) {
	for _, cmd := range []*pb.Command{
		put("n-1"), addTree("server"), noop(),
		propose(changeset(1, manifest.Atomic, write("d", 0, dir), write("d/f", 0, file("1")))),
	} {
		entry, err := gproto.Marshal(cmd)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(entry, []byte{})
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		m := founded()
		for _, entry := range [][]byte{first, second, first} {
			if out := m.ApplyEntry(entry); out == nil {
				t.Fatal("no outcome")
			}
		}
		once := snapshotOf(t, m)
		if !bytes.Equal(once, snapshotOf(t, restored(t, once))) {
			t.Fatal("restore(freeze(m)) is not m")
		}
	})
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
			once := snapshotOf(t, m)
			if !bytes.Equal(once, snapshotOf(t, restored(t, once))) {
				t.Fatal("restore(freeze(m)) is not m")
			}
		}
	})
}

// records cuts a snapshot into its length-prefixed records, as far as it goes.
func records(b []byte) (out [][]byte) {
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
	all := records(snapshot)
	if len(all) == 0 {
		t.Fatal("a snapshot of no records")
	}
	return len(all[len(all)-1])
}

// resealed appends the trailer that b's records ask for.
func resealed(b []byte) []byte {
	all := records(b)
	var whole []byte
	for _, r := range all {
		whole = append(whole, r...)
	}
	digest := manifest.DigestOf(whole)
	var out bytes.Buffer
	w := newRecordWriter(&out)
	w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Trailer{Trailer: &pb.SnapshotTrailer{Records: uint64(len(all)), Digest: digest[:]}}})
	_ = w.out.Flush()
	return append(whole, out.Bytes()...)
}
