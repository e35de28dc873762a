package raftstore

import (
	"bytes"
	"encoding/pem"
	"testing"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func ca(name string) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(name)})
}

func putCA(name string) *pb.Command {
	return &pb.Command{Format: Format, Do: &pb.Command_PutAuthority{PutAuthority: &pb.PutAuthority{
		Authority: &pb.Authority{CertPem: ca(name), KeyPem: []byte("key of " + name), CrossPem: []byte("cross of " + name)},
	}}}
}

func useCA(name string) *pb.Command {
	return &pb.Command{Format: Format, Do: &pb.Command_UseAuthority{UseAuthority: &pb.UseAuthority{Fingerprint: fingerprint(ca(name))}}}
}

func dropCA(name string) *pb.Command {
	return &pb.Command{Format: Format, Do: &pb.Command_DropAuthority{DropAuthority: &pb.DropAuthority{Fingerprint: fingerprint(ca(name))}}}
}

// The three steps, each twice, each with what is not its turn; after each the
// state survives a snapshot.
func TestAuthorityIsReplacedInThreeSteps(t *testing.T) {
	m := founded()
	mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{
		ClusterId: "c-1", CaCertPem: ca("old"), CaKeyPem: []byte("key of old"),
	}}})
	is := func(signing, also string, incoming bool) {
		t.Helper()
		m = restored(t, snapshotOf(t, m))
		a := m.Authorities()
		if !bytes.Equal(a.Signing.Cert, ca(signing)) || string(a.Key) != "key of "+signing {
			t.Fatalf("%s signs, with %q; want %s", a.Signing.Cert, a.Key, signing)
		}
		if (a.Also != nil) != (also != "") || also != "" && !bytes.Equal(a.Also.Cert, ca(also)) || a.Incoming != incoming {
			t.Fatalf("also trusted: %+v, incoming %v; want %q, %v", a.Also, a.Incoming, also, incoming)
		}
		if id, cert, key := m.Cluster(); id != "c-1" || !bytes.Equal(cert, a.Signing.Cert) || !bytes.Equal(key, a.Key) {
			t.Fatalf("the cluster is %s, %s, %q", id, cert, key)
		}
	}
	is("old", "", false)
	wantCode(t, m.Apply(useCA("new")), CodeAuthority)
	wantCode(t, m.Apply(dropCA("old")), CodeAuthority)
	for range 2 {
		mustDo(t, m, putCA("new"))
		is("old", "new", true)
	}
	wantCode(t, m.Apply(putCA("other")), CodeAuthority)
	wantCode(t, m.Apply(useCA("other")), CodeAuthority)
	for range 2 {
		mustDo(t, m, useCA("new"))
		is("new", "old", false)
	}
	if got := m.Authorities().Signing.Cross; string(got) != "cross of new" {
		t.Fatalf("cross certificate %q", got)
	}
	wantCode(t, m.Apply(putCA("other")), CodeAuthority)
	wantCode(t, m.Apply(dropCA("new")), CodeAuthority)
	for range 2 {
		mustDo(t, m, dropCA("old"))
		is("new", "", false)
	}
	if got := m.Authorities().Signing.Cross; len(got) != 0 {
		t.Fatalf("the dropped CA still vouches for the new one: %q", got)
	}
	// Given up before it signs.
	mustDo(t, m, putCA("third"))
	mustDo(t, m, dropCA("third"))
	is("new", "", false)
}

func TestAuthorityOfAnOwnPKIIsNotReplaced(t *testing.T) {
	m := founded()
	wantCode(t, m.Apply(putCA("new")), CodeAuthority) // no cluster at all
	mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: "c-1", CaCertPem: ca("own")}}})
	wantCode(t, m.Apply(putCA("new")), CodeAuthority)
	wantCode(t, m.Apply(&pb.Command{Format: Format, Do: &pb.Command_PutAuthority{}}), CodeMalformed)
	wantCode(t, m.Apply(&pb.Command{Format: Format, Do: &pb.Command_UseAuthority{}}), CodeAuthority)
	wantCode(t, m.Apply(&pb.Command{Format: Format, Do: &pb.Command_DropAuthority{}}), CodeMalformed)
}
