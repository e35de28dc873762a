package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// successor makes the CA that replaces one, with the old one's word for it.
func successor(t *testing.T, old testCA) CA {
	t.Helper()
	cert, key, err := NewCA(old.id)
	if err != nil {
		t.Fatal(err)
	}
	cross, err := (CA{ClusterID: old.id, Cert: old.cert, Key: old.key}).CrossSign(cert, time.Now())
	if err != nil || len(cross) == 0 {
		t.Fatalf("cross-sign: %q, %v", cross, err)
	}
	return CA{ClusterID: old.id, Cert: cert, Key: key, Cross: cross}
}

// become gives a node a bundle of CAs and, with sign, a new certificate.
func become(t *testing.T, i *Identity, node cluster.NodeID, sign *CA, bundle ...[]byte) {
	t.Helper()
	csr, err := i.CSR()
	if err != nil {
		t.Fatal(err)
	}
	certPEM := encodeCert(i.now.Load().leaf.Raw)
	if sign != nil {
		if certPEM, err = sign.Sign(csr, node, string(node), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(WriteRenewed(i.files, bytes.Join(bundle, nil), certPEM), i.Reload()); err != nil {
		t.Fatal(err)
	}
}

// A node that slept through the coming of a new CA knows only the old one. It
// still finds the others, and they it, until the old CA is dropped.
func TestWhoKnowsOnlyTheOldCAFindsTheOthers(t *testing.T) {
	old, b := newTestCA(t), newBook()
	fresh := successor(t, old)
	s1, s2 := startNode(t, old, b, "n-1"), startNode(t, old, b, "n-2")
	become(t, s1.cfg.Identity, "n-1", &fresh, fresh.Cert, old.cert)
	for s, to := range map[*Server]cluster.NodeID{s1: "n-2", s2: "n-1"} {
		if _, err := hello(t, s, to); err != nil {
			t.Errorf("to %s while both are trusted: %v", to, err)
		}
	}
	if print, _ := s1.cfg.Identity.Issuer(); print != mustPrint(t, fresh.Cert) {
		t.Error("n-1 does not say that the new CA has signed its certificate")
	}

	// Both CAs' tokens open the door.
	for name, ca := range map[string][]byte{"old": old.cert, "new": fresh.Cert} {
		tok, err := NewToken(ca)
		if err != nil {
			t.Fatal(err)
		}
		cc, err := DialJoin(testContext(t), s1.Addr().String(), tok)
		if err != nil {
			t.Errorf("a token of the %s CA: %v", name, err)
			continue
		}
		_ = cc.Close()
	}

	// Dropped: the open connections go, and the sleeper is refused.
	become(t, s1.cfg.Identity, "n-1", &CA{ClusterID: fresh.ClusterID, Cert: fresh.Cert, Key: fresh.Key}, fresh.Cert)
	if cut := s1.Prune(); !slices.Contains(cut, "n-2") {
		t.Errorf("the connections that were cut: %v", cut)
	}
	_, _, err := DialAs(testContext(t), s1.Addr().String(), s2.cfg.Identity, old.id, Instance{})
	wantError[*WrongClusterError](t, err)
	if _, err := hello(t, s1, "n-2"); err == nil {
		t.Error("the node that trusts the new CA alone speaks to one of the old")
	}
	tok, err := NewToken(old.cert)
	if err != nil {
		t.Fatal(err)
	}
	_, err = DialJoin(testContext(t), s1.Addr().String(), tok)
	wantError[*FingerprintError](t, err)
}

func mustPrint(t *testing.T, certPEM []byte) string {
	t.Helper()
	print, err := Fingerprint(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	return print
}

// A CA that may not sign another gives no word for its successor.
func TestCrossSignOfANarrowCA(t *testing.T) {
	old := newTestCA(t)
	fresh := successor(t, old)
	cross, err := (CA{ClusterID: old.id, Cert: fresh.Cross, Key: fresh.Key}).CrossSign(old.cert, time.Now())
	if err != nil || cross != nil {
		t.Fatalf("%q, %v", cross, err)
	}
}

// Prune cuts removed members and strangers, in both directions, and leaves the
// others alone: a stream goes on through a renewal.
func TestPruneCutsOnlyWhoIsOut(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s1, s2, s3 := startNode(t, ca, b, "n-1"), startNode(t, ca, b, "n-2"), startNode(t, ca, b, "n-3")
	stream := func(s *Server) func(uint64) error {
		cc, err := s.Dial(testContext(t), "n-1")
		if err != nil {
			t.Fatal(err)
		}
		st, err := pb.NewContentClient(cc).Push(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return func(n uint64) error {
			if err := st.Send(&pb.PushRequest{End: n}); err != nil {
				return err
			}
			_, err := st.Recv()
			return err
		}
	}
	stays, goes := stream(s2), stream(s3)
	if err := errors.Join(stays(1), goes(1)); err != nil {
		t.Fatal(err)
	}
	become(t, s1.cfg.Identity, "n-1", &CA{ClusterID: ca.id, Cert: ca.cert, Key: ca.key, Life: time.Minute}, ca.cert)
	if cut := s1.Prune(); len(cut) > 0 {
		t.Errorf("a renewal cut %v", cut)
	}
	if _, err := hello(t, s1, "n-3"); err != nil {
		t.Fatal(err)
	}
	b.remove("n-3")
	if cut := s1.Prune(); !slices.Equal(cut, []cluster.NodeID{"n-3", "n-3"}) {
		t.Errorf("cut %v, want both connections with n-3", cut)
	}
	if err := goes(2); err == nil {
		t.Error("the stream of a removed member goes on")
	}
	if err := stays(2); err != nil {
		t.Errorf("the stream of a member was cut: %v", err)
	}
	// What was cut is dialled again at once, and counts until it is refused.
	var left []*peerConn
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if left = s1.live.list(); len(left) == 1 && left[0].peer == "n-2" {
			return
		}
	}
	t.Errorf("still counted as open: %d connections", len(left))
}

// A CA is dropped, or a member removed, while a connection of theirs is in its
// handshake: Prune does not see it, and it does not come in all the same.
func TestAHandshakeDuringPruneIsJudgedByWhatHoldsNow(t *testing.T) {
	old, b := newTestCA(t), newBook()
	s1 := startNode(t, old, b, "n-1")
	thief := old.identity(t, "n-2").now.Load()
	fresh := newTestCA(t)
	trusts, err := Bundle(fresh.cert, old.cert)
	if err != nil {
		t.Fatal(err)
	}
	shake := func(meanwhile func()) (greeting, error) {
		t.Helper()
		raw, err := net.Dial("tcp", s1.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = raw.Close() })
		conf := clientConfig(protoGRPC)
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			meanwhile() // the server has chosen what it trusts, if it chooses so early
			return &thief.cert, nil
		}
		c := tls.Client(raw, conf)
		if err := c.HandshakeContext(testContext(t)); err != nil {
			t.Fatal(err)
		}
		return readGreeting(c)
	}
	if g, err := shake(func() {}); err != nil || g.Verdict != verdictOK {
		t.Fatalf("a good certificate: %+v, %v", g, err)
	}
	successor := &CA{ClusterID: old.id, Cert: fresh.cert, Key: fresh.key}
	become(t, s1.cfg.Identity, "n-1", successor, trusts)
	g, err := shake(func() {
		become(t, s1.cfg.Identity, "n-1", successor, fresh.cert)
		s1.Prune()
	})
	if err != nil || g.Verdict != verdictWrongCluster {
		t.Errorf("a certificate of the dropped CA: %+v, %v", g, err)
	}
	// The last look, behind the verdict, on either side.
	c := &peerConn{Conn: tls.Client(fakeAddr{}, clientConfig(protoGRPC)), peer: "n-2", presented: thief.chain[:1], usage: x509.ExtKeyUsageClientAuth}
	if s1.stands(c) == nil {
		t.Error("a certificate of the dropped CA stands")
	}
	become(t, s1.cfg.Identity, "n-1", successor, trusts)
	if err := s1.stands(c); err != nil {
		t.Error(err)
	}
	b.remove("n-2")
	if err := s1.stands(c); !errors.Is(err, cluster.ErrNotMember) {
		t.Errorf("a removed member: %v", err)
	}
}

// fakeAddr is a connection that only has an address.
type fakeAddr struct{ net.Conn }

func (fakeAddr) RemoteAddr() net.Addr { return &net.TCPAddr{} }

func TestCertificatesLiveAsLongAsTheCASays(t *testing.T) {
	ca := newTestCA(t)
	i := ca.identity(t, "n-1")
	now := time.Now()
	become(t, i, "n-1", &CA{ClusterID: ca.id, Cert: ca.cert, Key: ca.key, Life: time.Minute}, ca.cert)
	from, to := i.Validity()
	if to.Before(now.Add(50*time.Second)) || to.After(now.Add(70*time.Second)) || from.Before(now.Add(-70*time.Second)) {
		t.Errorf("valid from %s to %s, now is %s", from, to, now)
	}
}

// Who does not understand the cluster's log is told, whichever end dials; and
// nothing else is said on that connection.
func TestFormatsKeepOldNodesApart(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	told := make(chan error, 8)
	node := func(id cluster.NodeID, knows, active uint32) *Server {
		s := start(t, Config{Identity: ca.identity(t, id), ClusterID: ca.id, Self: id, Resolve: b.resolve, Formats: Formats{
			Knows: knows, Active: func() uint32 { return active }, Outdated: func(err error) { told <- err },
		}}, nil)
		b.set(id, s.Addr().String())
		return s
	}
	old, fresh, mixed := node("n-1", 1, 1), node("n-2", 2, 2), node("n-3", 2, 1)
	if _, err := hello(t, mixed, "n-1"); err != nil {
		t.Errorf("new program, old log: %v", err)
	}
	if _, err := hello(t, old, "n-3"); err != nil {
		t.Errorf("old program, old log: %v", err)
	}
	if _, err := hello(t, mixed, "n-2"); err != nil {
		t.Errorf("a new program that has not read the log yet: %v", err)
	}
	if len(told) > 0 {
		t.Fatalf("told too early: %v", <-told)
	}
	_, _, err := old.connect(testContext(t), "n-2", protoRaft)
	if e := wantError[*FormatError](t, err); e.Theirs || e.Knows != 1 || e.Active != 2 {
		t.Errorf("the old node's view: %+v", e)
	}
	if e := wantError[*FormatError](t, <-told); e.Active != 2 {
		t.Errorf("told %+v", e)
	}
	_, _, err = fresh.connect(testContext(t), "n-1", protoRaft)
	if e := wantError[*FormatError](t, err); !e.Theirs || e.Knows != 1 || e.Active != 2 {
		t.Errorf("the new node's view: %+v", e)
	}
	if len(told) > 0 {
		t.Errorf("the new node was told: %v", <-told)
	}
	// In which format the log of another life is, does not matter.
	other := start(t, Config{
		Identity: ca.identity(t, "n-4"), ClusterID: ca.id, Self: "n-4", Resolve: b.resolve, Instance: Instance{Incarnation: 2, Nonce: NewNonce()},
		Formats: Formats{Knows: 9, Active: func() uint32 { return 9 }, Outdated: func(error) {}},
	}, nil)
	b.set("n-4", other.Addr().String())
	_, _, err = old.connect(testContext(t), "n-4", protoGRPC)
	wantError[*IncarnationError](t, err)
	if len(told) > 0 {
		t.Errorf("another life ends a node with its format: %v", <-told)
	}
}
