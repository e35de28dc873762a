package raftstore

import (
	"bytes"
	"fmt"
	"testing"

	gproto "google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// What stands in the log stands there for ever: no entry of an older or a
// hostile node may keep a node from starting, or make two of them disagree.
func TestRubbishInTheLogIsReadAndRefused(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	d := manifest.DigestOf([]byte("x"))
	evil := &pb.Changeset{Id: &pb.ChangesetID{Node: "n-2", Seq: 1 << 50}, Tree: "server"}
	for _, p := range []string{"../evil", "/etc/evil", "nul\x00", "", "a/../../b", ".gatesync/marker.json"} {
		evil.Changes = append(evil.Changes, &pb.Change{Path: []byte(p), New: &pb.Entry{Kind: 2, Mode: 0o755}})
	}
	evil.Changes = append(evil.Changes,
		&pb.Change{Path: []byte("l"), New: &pb.Entry{Kind: 3, Mode: 0o777, Size: 5, Target: []byte("../..")}},
		&pb.Change{Path: []byte("huge"), New: &pb.Entry{Kind: 1, Size: 1<<63 - 1, Digest: d[:]}},
		&pb.Change{Path: []byte("good"), New: &pb.Entry{Kind: 2, Mode: 0o755}})
	entries := [][]byte{nil, []byte("rubbish"), {0xff, 0xff, 0xff}}
	for _, cmd := range []*pb.Command{
		{}, {Format: 99}, {Format: Format}, {Format: Format, Do: &pb.Command_Propose{}}, {Format: Format, Do: &pb.Command_PutMember{PutMember: &pb.PutMember{}}},
		{Format: Format, Do: &pb.Command_Propose{Propose: &pb.Changeset{Id: &pb.ChangesetID{Node: "n-1", Seq: 1 << 51}, Part: 1 << 31, Parts: 1<<32 - 1}}},
		{Format: Format, Do: &pb.Command_UseToken{UseToken: &pb.UseToken{}}}, {Format: Format, Do: &pb.Command_TrimHistory{TrimHistory: &pb.TrimHistory{Below: 1<<64 - 1}}},
		{Format: Format, TimeNs: -1 << 63, Do: &pb.Command_PutToken{PutToken: &pb.PutToken{Id: "k", Uses: 1<<32 - 1, ExpiresNs: 1<<63 - 1, SecretDigest: d[:]}}},
		{Format: Format, Do: &pb.Command_Propose{Propose: evil}},
	} {
		entry, err := gproto.Marshal(cmd)
		c.must(err)
		entries = append(entries, entry)
	}
	for _, entry := range entries {
		c.asLeader(stores, func(s *Store) error {
			a, err := s.enter(c.ctx(), entry)
			if err != nil {
				return err
			}
			return (<-a).err
		})
	}
	c.agree(stores...)
	check := func(s *Store) {
		t.Helper()
		v, _ := s.View("server")
		n := 0
		v.Manifest.All(func(p manifest.Path, e manifest.Node) bool {
			n++
			if p != "good" {
				t.Errorf("%q -> %v was taken", p, e.Entry)
			}
			return true
		})
		if n != 1 {
			t.Errorf("%d paths", n)
		}
	}
	for _, s := range stores {
		check(s)
		c.close(s)
	}
	for i, id := range []cluster.NodeID{"n-1", "n-2", "n-3"} {
		stores[i] = c.open(id)
	}
	c.agree(stores...)
	for _, s := range stores {
		check(s)
	}
	c.mkdir(stores[0], "and-goes-on")
}

// What one member can have the others remember for it is bounded.
func TestRememberedAnswersAreBounded(t *testing.T) {
	m := founded()
	send := func(seq uint64) *pb.Outcome {
		const parts = 8
		var out *pb.Outcome
		for part := range uint32(parts) {
			c := changeset(seq, manifest.Atomic)
			for i := range 1000 {
				c.Changes = append(c.Changes, write(fmt.Sprintf("absent-%d-%0100d/f", part, i), 0, dir))
			}
			cmd := propose(c)
			cmd.GetPropose().Part, cmd.GetPropose().Parts = part, parts
			out = m.Apply(cmd)
		}
		return out
	}
	for seq := uint64(1); seq <= 4; seq++ {
		first := send(seq)
		if n := len(first.GetResult().GetRefused()); n != 8000 {
			t.Fatalf("%d of 8000 are refused: %v", n, first.GetMessage())
		}
		wantCode(t, send(seq), CodeStale)
	}
	if n := len(snapshotOf(t, m)); n > 4*maxRemembered {
		t.Errorf("a snapshot of %d bytes", n)
	}
	once := snapshotOf(t, m)
	if !bytes.Equal(once, snapshotOf(t, restored(t, once))) {
		t.Error("restored otherwise")
	}
	for i := range 2 * maxTrees {
		m.Apply(addTree(fmt.Sprint("tree", i)))
		m.Apply(put(fmt.Sprint("m-", i)))
	}
	for i := range 3 * maxTrees {
		m.Apply(put(fmt.Sprint("n-", i)))
	}
	if len(m.Trees()) != maxTrees || len(m.Members()) > maxMembers {
		t.Errorf("%d trees, %d members", len(m.Trees()), len(m.Members()))
	}
}
