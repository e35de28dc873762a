package transport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// foreignCert writes a certificate as a company's PKI would: no gatesync URI.
func foreignCert(t *testing.T, ca testCA, name string) Files {
	t.Helper()
	f := FilesIn(filepath.Join(t.TempDir(), "tls"))
	keyPEM, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	caKey, err := parseKey(ca.key)
	if err != nil {
		t.Fatal(err)
	}
	caCert, err := firstCert(ca.cert)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := newSerial()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, caCert, key.Public().(*ecdsa.PublicKey), caKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteIdentity(f, ca.cert, encodeCert(der), keyPEM); err != nil {
		t.Fatal(err)
	}
	return f
}

// network runs Raft's own transport over a server and answers every append
// with the term it came with.
func network(t *testing.T, s *Server) *raft.NetworkTransport {
	t.Helper()
	n := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s.Raft(), MaxPool: 3, Timeout: 10 * time.Second, MaxRPCsInFlight: 1, Logger: hclog.NewNullLogger(),
	})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case rpc := <-n.Consumer():
				switch c := rpc.Command.(type) {
				case *raft.AppendEntriesRequest:
					rpc.Respond(&raft.AppendEntriesResponse{Term: c.Term, Success: true, LastLog: uint64(len(c.Entries))}, nil)
				case *raft.InstallSnapshotRequest:
					n, err := io.Copy(io.Discard, rpc.Reader)
					rpc.Respond(&raft.InstallSnapshotResponse{Term: uint64(n), Success: err == nil}, err)
				}
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = n.Close()
		n.CloseStreams()
		close(stop)
		<-done
	})
	return n
}

func appendTo(n *raft.NetworkTransport, id string, term uint64) error {
	var resp raft.AppendEntriesResponse
	req := &raft.AppendEntriesRequest{Term: term, Entries: []*raft.Log{{Index: 1, Data: bytes.Repeat([]byte("x"), 1000)}}}
	err := n.AppendEntries(raft.ServerID(id), raft.ServerAddress(id), req, &resp)
	if err == nil && (resp.Term != term || resp.LastLog != 1) {
		err = errors.New("a wrong answer")
	}
	return err
}

// Raft and gRPC share the port and do not disturb each other.
func TestRaftAndGRPCOnOnePort(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s1, s2 := startNode(t, ca, b, "n-1"), startNode(t, ca, b, "n-2")
	n1 := network(t, s1)
	network(t, s2)
	if got := n1.LocalAddr(); got != "n-1" {
		t.Errorf("Raft's own address is %q", got)
	}
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range 50 {
				if err := appendTo(n1, "n-2", uint64(100*w+i+1)); err != nil {
					t.Error("append:", err)
					return
				}
			}
		})
		wg.Go(func() {
			for range 50 {
				if id, err := hello(t, s1, "n-2"); err != nil || id != "n-1" {
					t.Error("hello:", id, err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		var resp raft.InstallSnapshotResponse
		data := bytes.Repeat([]byte("s"), 4<<20)
		err := n1.InstallSnapshot("n-2", "n-2", &raft.InstallSnapshotRequest{Size: int64(len(data))}, &resp, bytes.NewReader(data))
		if err != nil || resp.Term != uint64(len(data)) {
			t.Error("snapshot:", resp.Term, err)
		}
	})
	wg.Wait()
}

func TestRaftRefusesRemovedMembers(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s1, s2 := startNode(t, ca, b, "n-1"), startNode(t, ca, b, "n-2")
	n1 := network(t, s1)
	network(t, s2)
	if err := appendTo(n1, "n-2", 1); err != nil {
		t.Fatal(err)
	}
	b.remove("n-1")
	if err := appendTo(n1, "n-2", 2); err == nil {
		t.Error("an open Raft connection still works")
	}
	_, err := s1.Raft().Dial("n-2", 10*time.Second)
	wantError[*RemovedError](t, err)
}

func TestRaftDialEndsWithTheServer(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := startNode(t, ca, b, "n-1")
	if err := s.Raft().Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Raft().Dial("n-1", time.Minute); !errors.Is(err, ErrClosed) {
		t.Errorf("dial after close: %v", err)
	}
	if _, err := s.Raft().Accept(); err == nil {
		t.Error("accept after close")
	}
}

// A renewed certificate is used by the next handshake; open streams go on.
func TestReloadMidFlight(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	f := ca.issue(t, "n-1", time.Now().Add(-time.Hour))
	id := mustLoad(t, f)
	s1 := start(t, Config{Identity: id, ClusterID: ca.id, Self: "n-1", Resolve: b.resolve}, nil)
	b.set("n-1", s1.Addr().String())
	s2 := startNode(t, ca, b, "n-2")
	ctx := testContext(t)
	cc, err := s2.Dial(ctx, "n-1")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := pb.NewContentClient(cc).Push(ctx)
	if err != nil {
		t.Fatal(err)
	}
	echo := func(n uint64) {
		t.Helper()
		if err := stream.Send(&pb.PushRequest{End: n}); err != nil {
			t.Fatal(err)
		}
		if r, err := stream.Recv(); err != nil || r.GetBatch() != n {
			t.Fatalf("echo: %v, %v", r, err)
		}
	}
	echo(1)

	csr, err := id.CSR()
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := (CA{ClusterID: ca.id, Cert: ca.cert, Key: ca.key}).Sign(csr, "n-1", "gw1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, before := id.Validity()
	if err := WriteRenewed(f, nil, renewed); err != nil {
		t.Fatal(err)
	}
	if err := id.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, after := id.Validity(); !after.After(before) {
		t.Errorf("valid to %s, before the renewal to %s", after, before)
	}
	echo(2)
	c, _, err := s2.connect(ctx, "n-1", protoGRPC)
	if err != nil {
		t.Fatal(err)
	}
	want, err := firstCert(renewed)
	if err != nil {
		t.Fatal(err)
	}
	if !c.ConnectionState().PeerCertificates[0].Equal(want) {
		t.Error("a new connection shows the old certificate")
	}
	_ = c.Close()

	// What cannot be used changes nothing.
	if err := WriteRenewed(f, nil, newTestCA(t).cert); err == nil {
		t.Error("a certificate that does not fit the key was written")
	}
	if err := os.WriteFile(f.Cert, newTestCA(t).cert, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := id.Reload(); err == nil {
		t.Error("a certificate that does not fit the key was taken")
	}
	if _, err := hello(t, s1, "n-2"); err != nil {
		t.Errorf("after a refused reload: %v", err)
	}
}

// While one CA replaces another both are trusted, and nobody restarts.
func TestNewCAWithoutRestart(t *testing.T) {
	old, b := newTestCA(t), newBook()
	fresh := testCA{id: old.id}
	var err error
	if fresh.cert, fresh.key, err = NewCA(old.id); err != nil {
		t.Fatal(err)
	}
	f1, f2 := old.issue(t, "n-1", time.Now()), old.issue(t, "n-2", time.Now())
	id1, id2 := mustLoad(t, f1), mustLoad(t, f2)
	s1 := start(t, Config{Identity: id1, ClusterID: old.id, Self: "n-1", Resolve: b.resolve}, nil)
	s2 := start(t, Config{Identity: id2, ClusterID: old.id, Self: "n-2", Resolve: b.resolve}, nil)
	b.set("n-1", s1.Addr().String())
	b.set("n-2", s2.Addr().String())
	both := append(bytes.Clone(old.cert), fresh.cert...)
	renew := func(f Files, i *Identity, ca testCA, node cluster.NodeID) {
		t.Helper()
		csr, err := i.CSR()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := (CA{ClusterID: ca.id, Cert: ca.cert, Key: ca.key}).Sign(csr, node, string(node), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(WriteRenewed(f, both, cert), i.Reload()); err != nil {
			t.Fatal(err)
		}
	}
	renew(f1, id1, old, "n-1")   // trusts both
	renew(f2, id2, fresh, "n-2") // and is signed by the new one
	for _, s := range []*Server{s1, s2} {
		to := cluster.NodeID("n-2")
		if s == s2 {
			to = "n-1"
		}
		if _, err := hello(t, s, to); err != nil {
			t.Errorf("to %s: %v", to, err)
		}
	}
	want, err := Fingerprint(fresh.cert)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Fingerprint(id2.IssuerPEM()); err != nil || got != want {
		t.Errorf("tokens of n-2 carry %s, %v; want the new CA %s", got, err, want)
	}
}

func TestServerCloseCutsStreams(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s1, s2 := startNode(t, ca, b, "n-1"), startNode(t, ca, b, "n-2")
	cc, err := s2.Dial(testContext(t), "n-1")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := pb.NewContentClient(cc).Push(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pb.PushRequest{End: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := s1.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream outlived its server")
	}
}
