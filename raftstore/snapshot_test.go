package raftstore

import (
	"bytes"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func TestViewsDoNotChange(t *testing.T) {
	m := founded()
	mustCommit(t, m, changeset(1, manifest.PerPath, write("f", 0, file("1"))))
	v, _ := m.View("server")
	frozen := m.Freeze()
	var before, after bytes.Buffer
	_, _ = frozen.WriteTo(&before)
	mustCommit(t, m, changeset(2, manifest.PerPath, write("f", 1, file("2")), write("g", 0, file("g"))))
	mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: "n-3"}}})
	_, _ = frozen.WriteTo(&after)
	if v.Manifest.Len() != 1 || v.Manifest.Entry("f").Digest != file("1").Digest || !bytes.Equal(before.Bytes(), after.Bytes()) {
		t.Fatal("what was handed out has changed")
	}
}

func TestADamagedSnapshotChangesNothing(t *testing.T) {
	m := founded()
	mustCommit(t, m, changeset(1, manifest.PerPath, write("f", 0, file("1"))))
	good := snapshotOf(t, m)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x20
		if err := m.Restore(bytes.NewReader(bad)); err == nil {
			t.Fatalf("a flipped bit in byte %d of %d went unnoticed", i, len(good))
		}
		if err := m.Restore(bytes.NewReader(good[:i])); err == nil {
			t.Fatalf("a snapshot torn at byte %d of %d was accepted", i, len(good))
		}
	}
	if !bytes.Equal(good, snapshotOf(t, m)) {
		t.Fatal("the machine has changed")
	}
}
