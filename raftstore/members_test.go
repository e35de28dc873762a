package raftstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func TestMembers(t *testing.T) {
	m := founded()
	set := func(c cluster.Member) *pb.Outcome {
		return m.Apply(&pb.Command{Format: Format, TimeNs: 5, Do: &pb.Command_PutMember{PutMember: &pb.PutMember{Member: FromMember(c)}}})
	}
	wantCode(t, set(cluster.Member{ID: "n-4", Name: "name-n-1"}), CodeNameTaken)
	wantCode(t, set(cluster.Member{ID: "n-4", Name: ""}), CodeMalformed)
	wantCode(t, set(cluster.Member{ID: "n-4", Name: "\xff"}), CodeMalformed)
	wantCode(t, set(cluster.Member{ID: "n-4", Name: "four", Address: "new", Epoch: 7}), Done)
	wantCode(t, set(cluster.Member{ID: "n-4", Name: "four", Address: "old", Epoch: 6}), Done)
	if got := m.Members()[3]; got.Address != "new" || got.Joined != 5 || got.Epoch != 7 {
		t.Fatalf("member %+v", got)
	}
	gone := &pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: "n-4"}}}
	wantCode(t, m.Apply(gone), Done)
	wantCode(t, m.Apply(gone), Done) // again
	wantCode(t, set(cluster.Member{ID: "n-4", Name: "four", Epoch: 8}), CodeRemoved)
	m = restored(t, snapshotOf(t, m))
	wantCode(t, set(cluster.Member{ID: "n-4", Name: "four", Epoch: 8}), CodeRemoved)
	wantCode(t, set(cluster.Member{ID: "n-5", Name: "four"}), Done) // the name is free again
	wantCode(t, m.Apply(&pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: "n-9"}}}), CodeNotMember)
}

// The role that an operator chose survives everything but the next word on it.
func TestSetRoleSticks(t *testing.T) {
	m := founded()
	role := func(id, role string) *pb.Outcome {
		return m.Apply(&pb.Command{Format: Format, Do: &pb.Command_SetRole{SetRole: &pb.SetRole{Id: id, Role: role}}})
	}
	wantCode(t, role("n-9", "voter"), CodeNotMember)
	wantCode(t, role("n-1", "king"), CodeMalformed)
	frozen := m.Freeze()
	wantCode(t, role("n-1", "nonvoter"), Done)
	if got := frozen.members["n-1"].GetWish(); got != "" {
		t.Fatalf("a frozen state changed: %q", got)
	}
	// An announcement of the node itself neither clears nor sets it.
	mine := FromMember(cluster.Member{ID: "n-1", Name: "one", Store: "s-n-1", Epoch: 9, Witness: true})
	mine.Wish = "voter"
	wantCode(t, m.Apply(&pb.Command{Format: Format, Do: &pb.Command_PutMember{PutMember: &pb.PutMember{Member: mine}}}), Done)
	m = restored(t, snapshotOf(t, m))
	if got := m.Members()[0]; got.Wish != cluster.NonVoter || !got.Witness || got.Name != "one" {
		t.Fatalf("member %+v", got)
	}
	wantCode(t, role("n-1", ""), Done)
	if got := m.Members()[0]; got.Wish != "" {
		t.Fatalf("member %+v", got)
	}
}

func TestTokens(t *testing.T) {
	m := founded()
	secret, wrong := manifest.DigestOf([]byte("secret")), manifest.DigestOf([]byte("wrong"))
	const expires = int64(time.Hour)
	mustDo(t, m, &pb.Command{Format: Format, TimeNs: 0, Do: &pb.Command_PutToken{PutToken: &pb.PutToken{
		Id: "k", SecretDigest: secret[:], ExpiresNs: expires, Uses: 2,
	}}})
	use := func(now int64, id string, secret manifest.Digest, node string) *pb.Outcome {
		return m.Apply(&pb.Command{Format: Format, TimeNs: now, Do: &pb.Command_UseToken{UseToken: &pb.UseToken{
			Id: id, SecretDigest: secret[:], Member: &pb.Member{Id: node, Name: "name-" + node, Store: "s-" + node},
		}}})
	}
	wantCode(t, use(1, "other", secret, "n-4"), CodeTokenUnknown)
	wantCode(t, use(1, "k", wrong, "n-4"), CodeTokenSecret)
	wantCode(t, use(1, "k", secret, "n-1"), CodeMemberExists)
	wantCode(t, use(expires, "k", secret, "n-4"), CodeTokenExpired)
	wantCode(t, use(1, "k", secret, "n-4"), Done)
	wantCode(t, use(1, "k", secret, "n-4"), Done) // the answer was lost
	m = restored(t, snapshotOf(t, m))
	wantCode(t, use(2, "k", secret, "n-5"), Done)
	wantCode(t, use(3, "k", secret, "n-6"), CodeTokenUsedUp)
	wantCode(t, use(expires+1, "k", secret, "n-5"), Done)
	if got := len(m.Members()); got != 5 {
		t.Fatalf("%d members, want 5", got)
	}
	wantCode(t, use(expires+tokenGrace+1, "k", secret, "n-6"), CodeTokenUnknown) // pruned
	if len(m.tokens) != 0 {
		t.Fatal("the token is still there")
	}
}

func TestTokensAreBounded(t *testing.T) {
	m := founded()
	secret := manifest.DigestOf(nil)
	for i := range maxTokens + 1 {
		mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_PutToken{PutToken: &pb.PutToken{
			Id: fmt.Sprint("k", i), SecretDigest: secret[:], ExpiresNs: int64(1000 + i), Uses: 1,
		}}})
	}
	if _, ok := m.tokens["k0"]; ok || len(m.tokens) != maxTokens {
		t.Fatalf("%d tokens; the one that expires first is there: %v", len(m.tokens), ok)
	}
}

func TestTreesAndCluster(t *testing.T) {
	m := founded()
	again := func(id string, gen uint64) {
		mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_PutTree{PutTree: &pb.PutTree{Name: "server", Id: id, Generation: gen}}})
	}
	again("t-other", 0)
	if got := m.Trees(); len(got) != 1 || got[0] != (TreeInfo{"server", "t-server", 1}) {
		t.Fatalf("trees %v", got)
	}
	again("t-other", 2)
	if got := m.Trees()[0]; got != (TreeInfo{"server", "t-server", 2}) {
		t.Fatalf("tree %v", got)
	}
	if _, ok := m.View("tenants"); ok {
		t.Fatal("a view of no tree")
	}
	init := func(id string) *pb.Outcome {
		return m.Apply(&pb.Command{Format: Format, Do: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: id, CaCertPem: []byte("ca")}}})
	}
	wantCode(t, init("c-1"), Done)
	wantCode(t, init("c-1"), Done)
	wantCode(t, init("c-2"), CodeInitialized)
	if id, ca, _ := m.Cluster(); id != "c-1" || string(ca) != "ca" {
		t.Fatalf("cluster %s %s", id, ca)
	}
}
