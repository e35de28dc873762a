package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func TestOtherClustersCertificate(t *testing.T) {
	ours, theirs, b := newTestCA(t), newTestCA(t), newBook()
	s := startNode(t, ours, b, "n-1")
	_, _, err := DialAs(testContext(t), s.Addr().String(), theirs.identity(t, "n-1"), theirs.id, Instance{})
	e := wantError[*WrongClusterError](t, err)
	if e.Ours != theirs.id || e.Theirs != ours.id {
		t.Errorf("ours %s, theirs %s", e.Ours, e.Theirs)
	}
}

// A caller that does not verify us is still verified by us.
func TestStrangerIsToldAndRefused(t *testing.T) {
	ours, theirs, b := newTestCA(t), newTestCA(t), newBook()
	s := startNode(t, ours, b, "n-1")
	conf := clientConfig(protoGRPC)
	conf.Certificates = []tls.Certificate{theirs.identity(t, "n-1").now.Load().cert}
	c, g, err := shake(testContext(t), time.Minute, s.Addr().String(), "", conf)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if g.Verdict != verdictWrongCluster || g.Cluster != ours.id {
		t.Errorf("verdict %q of %s", g.Verdict, g.Cluster)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection goes on: %v", err)
	}
}

// With an own PKI two clusters may share a CA.
func TestSameCAOtherCluster(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := startNode(t, ca, b, "n-1")
	f := ca.issue(t, "n-2", time.Now())
	_, _, err := DialAs(testContext(t), s.Addr().String(), mustLoad(t, f), "c-other", Instance{})
	if e := wantError[*WrongClusterError](t, err); e.Theirs != ca.id {
		t.Errorf("theirs %s, want %s", e.Theirs, ca.id)
	}
}

func TestExpiredCertificates(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	for name, at := range map[string]time.Time{
		"expired": time.Now().Add(-2 * nodeLife), "not yet valid": time.Now().Add(48 * time.Hour),
	} {
		t.Run("caller "+name, func(t *testing.T) {
			s := startNode(t, ca, b, "n-1")
			_, _, err := DialAs(testContext(t), s.Addr().String(), mustLoad(t, ca.issue(t, "n-2", at)), ca.id, Instance{})
			e := wantError[*ClockError](t, err)
			if e.There.IsZero() || e.Here.IsZero() || !strings.Contains(e.Whose, "n-2") {
				t.Errorf("whose %q, here %s, there %s", e.Whose, e.Here, e.There)
			}
		})
		t.Run("callee "+name, func(t *testing.T) {
			s := start(t, Config{Identity: mustLoad(t, ca.issue(t, "n-1", at)), ClusterID: ca.id, Self: "n-1"}, nil)
			_, _, err := DialAs(testContext(t), s.Addr().String(), ca.identity(t, "n-2"), ca.id, Instance{})
			e := wantError[*ClockError](t, err)
			if e.There.IsZero() || !strings.Contains(e.Whose, "n-1") {
				t.Errorf("whose %q, there %s", e.Whose, e.There)
			}
		})
	}
}

func TestClockErrorTells(t *testing.T) {
	now := time.Now()
	skewed := &ClockError{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), Here: now.Add(5 * time.Hour), There: now}
	if !strings.Contains(skewed.Error(), "differ by 5h0m0s") {
		t.Error(skewed)
	}
	expired := &ClockError{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour), Here: now, There: now}
	if !strings.Contains(expired.Error(), "has expired") {
		t.Error(expired)
	}
}

func TestRemovedMember(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	startNode(t, ca, b, "n-1")
	s2 := startNode(t, ca, b, "n-2")
	if _, err := hello(t, s2, "n-1"); err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	cc, err := s2.Dial(ctx, "n-1")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := pb.NewContentClient(cc).Push(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pb.PushRequest{End: 7}); err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || r.GetBatch() != 7 {
		t.Fatalf("before the removal: %v, %v", r, err)
	}

	b.remove("n-2")
	if _, err := hello(t, s2, "n-1"); !errors.Is(err, cluster.ErrNotMember) {
		t.Errorf("a call in an open connection: %v", err)
	}
	_ = stream.Send(&pb.PushRequest{End: 8})
	if r, err := stream.Recv(); !errors.Is(err, cluster.ErrNotMember) {
		t.Errorf("a message in an open stream: %v, %v", r, err)
	}
	addr, _ := b.resolve("n-1")
	_, _, err = DialAs(ctx, addr, s2.cfg.Identity, ca.id, Instance{})
	wantError[*RemovedError](t, err)
	if !errors.Is(err, cluster.ErrNotMember) {
		t.Errorf("%v is not ErrNotMember", err)
	}
	// A new connection of a server gives its calls the same error as a value.
	s2.Forget("n-1")
	_, err = hello(t, s2, "n-1")
	wantError[*RemovedError](t, err)
	if status.Code(err) != codes.Unavailable {
		t.Errorf("code %s", status.Code(err))
	}
}

func TestNotAGatesyncPort(t *testing.T) {
	ca := newTestCA(t)
	id := ca.identity(t, "n-1")
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	for name, addr := range map[string]string{"http": web.Listener.Addr().String(), "https": secure.Listener.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			_, _, err := DialAs(testContext(t), addr, id, ca.id, Instance{})
			if e := wantError[*NotGatesyncError](t, err); e.Addr != addr {
				t.Errorf("names %s", e.Addr)
			}
			tok, err := NewToken(ca.cert)
			if err != nil {
				t.Fatal(err)
			}
			_, err = DialJoin(testContext(t), addr, tok)
			wantError[*NotGatesyncError](t, err)
		})
	}
}

// A server that accepts and says nothing costs the caller its deadline.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ca := newTestCA(t)
	d := dialer{clusterID: ca.id, identity: ca.identity(t, "n-1"), timeout: 50 * time.Millisecond}
	_, _, err = d.dial(context.Background(), l.Addr().String(), protoGRPC, "")
	if e := wantError[*UnreachableError](t, err); !errors.Is(e, context.DeadlineExceeded) {
		t.Errorf("cause %v", e.Err)
	}
}

// Whatever does not speak TLS, or is slow, is closed and delays nobody.
func TestRubbishIsClosed(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := start(t, Config{
		Identity: ca.identity(t, "n-1"), ClusterID: ca.id, Self: "n-1", Resolve: b.resolve,
		HandshakeTimeout: time.Second, MaxHandshakes: 8,
	}, nil)
	b.set("n-1", s.Addr().String())
	open := func() net.Conn {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		return c
	}
	plain := open()
	if _, err := io.WriteString(plain, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	var silent []net.Conn
	for range 20 { // more than there are handshakes
		silent = append(silent, open())
	}
	for ctx := testContext(t); ; { // on a busy machine its own handshake may take too long, too
		_, err := hello(t, s, "n-1")
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("beside silent connections: %v", err)
		}
	}
	for _, c := range append(silent, plain) {
		if _, err := io.Copy(io.Discard, c); err != nil && isTimeout(err) {
			t.Fatal("a connection was left open")
		}
	}
	// TLS, but not our protocol.
	c, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // a stranger
	if err == nil {
		_ = c.Close()
		t.Error("the port speaks a foreign protocol")
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestOwnPKI(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	names := map[string]cluster.NodeID{"gw1.example.com": "n-1", "gw2.example.com": "n-2"}
	lookup := func(name string) (cluster.NodeID, bool) { id, ok := names[name]; return id, ok }
	node := func(name string, id cluster.NodeID) *Server {
		s := start(t, Config{
			Identity: mustLoad(t, foreignCert(t, ca, name)), ClusterID: "c-own", Self: id,
			Resolve: b.resolve, Member: b.member, Lookup: lookup,
		}, nil)
		b.set(id, s.Addr().String())
		return s
	}
	s1, s2 := node("gw1.example.com", "n-1"), node("gw2.example.com", "n-2")
	if got, err := hello(t, s1, "n-2"); err != nil || got != "n-1" {
		t.Errorf("hello: %q, %v", got, err)
	}
	// Signed by the right CA, and nobody we know.
	_, _, err := DialAs(testContext(t), s2.Addr().String(), mustLoad(t, foreignCert(t, ca, "printer.example.com")), "c-own", Instance{})
	wantError[*RemovedError](t, err)
	cc, id, err := DialAs(testContext(t), s2.Addr().String(), s1.cfg.Identity, "c-own", Instance{})
	if err != nil || id != "n-2" {
		t.Fatalf("dial: %s, %v", id, err)
	}
	_ = cc.Close()
}
