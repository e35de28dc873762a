package transport

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func newTestToken(t *testing.T, ca testCA) Token {
	t.Helper()
	tok, err := NewToken(ca.cert)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestJoin(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := startNode(t, ca, b, "n-1")
	ctx := testContext(t)
	cc, err := DialJoin(ctx, s.Addr().String(), newTestToken(t, ca))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	r, err := pb.NewJoinClient(cc).Join(ctx, &pb.JoinRequest{Name: "gw2"})
	if err != nil || r.GetClusterId() != "gw2" {
		t.Errorf("join: %v, %v", r, err)
	}
	// Nothing else is served to whom has no certificate.
	if _, err := pb.NewClusterClient(cc).Hello(ctx, &pb.HelloRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("hello from a joiner: %v", err)
	}
}

// The clock of a joiner may be off: certificates that are not valid now are
// no reason not to hear what time it is.
func TestJoinIgnoresDates(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := start(t, Config{Identity: mustLoad(t, ca.issue(t, "n-1", time.Now().Add(-3*nodeLife))), ClusterID: ca.id, Self: "n-1", Resolve: b.resolve}, nil)
	cc, err := DialJoin(testContext(t), s.Addr().String(), newTestToken(t, ca))
	if err != nil {
		t.Fatal(err)
	}
	_ = cc.Close()
}

func TestJoinChecksTheFingerprint(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := startNode(t, ca, b, "n-1")
	tok := newTestToken(t, newTestCA(t))
	_, err := DialJoin(testContext(t), s.Addr().String(), tok)
	if e := wantError[*FingerprintError](t, err); e.Want != tok.Fingerprint || len(e.Have) != 2 {
		t.Errorf("want %s, have %v", e.Want, e.Have)
	}
}

// Anybody can show the CA's certificate.
func TestShowingTheCAIsNotEnough(t *testing.T) {
	ours, theirs := newTestCA(t), newTestCA(t)
	leaf := theirs.identity(t, "n-1").now.Load().leaf
	ca, err := firstCert(ours.cert)
	if err != nil {
		t.Fatal(err)
	}
	err = verifyFingerprint("x:1", []*x509.Certificate{leaf, ca}, fingerprint(ca))
	wantError[*FingerprintError](t, err)
}

// Strangers who connect and say nothing keep no joiner out: the oldest goes.
// Who has asked stays until the answer.
func TestSlowStrangersKeepNoJoinerOut(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := start(t, Config{Identity: ca.identity(t, "n-1"), ClusterID: ca.id, Self: "n-1", Resolve: b.resolve, MaxJoins: 2}, nil)
	ctx := testContext(t)
	tok := newTestToken(t, ca)
	dial := func() (*grpc.ClientConn, error) { return DialJoin(ctx, s.Addr().String(), tok) }
	for range 8 {
		c, err := dialJoin(ctx, s.Addr().String(), tok)
		if err != nil {
			t.Fatal("beside strangers that say nothing:", err)
		}
		defer c.Close()
	}
	asking, stop := context.WithCancel(ctx)
	var answers [2]chan error
	for i := range answers {
		cc, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		answers[i] = make(chan error, 1)
		go func() {
			_, err := pb.NewJoinClient(cc).Join(asking, &pb.JoinRequest{Name: "slow"})
			answers[i] <- err
		}()
		for !s.joiners.waits(i + 1) {
			if err := ctx.Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err := dial()
	wantError[*BusyError](t, err)
	stop()
	for _, a := range answers {
		if err := <-a; status.Code(err) != codes.Canceled && !errors.Is(err, context.Canceled) {
			t.Errorf("a joiner that waited for its answer: %v", err)
		}
	}
	for s.joiners.waits(1) {
		if err := ctx.Err(); err != nil {
			t.Fatal(err)
		}
	}
	cc, err := dial()
	if err != nil {
		t.Fatal("after the answers:", err)
	}
	_ = cc.Close()
}

// waits tells whether so many joiners wait for their answers, or more.
func (s *conns) waits(want int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.order.Front(); e != nil; e = e.Next() {
		if isJoining(e.Value.(net.Conn)) {
			want--
		}
	}
	return want <= 0
}

func TestJoinsAreLimited(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := startNode(t, ca, b, "n-1")
	cc, err := DialJoin(testContext(t), s.Addr().String(), newTestToken(t, ca))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	var last error
	for range 40 {
		if _, last = pb.NewJoinClient(cc).Join(testContext(t), &pb.JoinRequest{}); last != nil {
			break
		}
	}
	if status.Code(last) != codes.ResourceExhausted {
		t.Errorf("40 joins in a row: %v", last)
	}
}

// A host that asks without end uses up its own share, and no more hosts are
// told apart than fit.
func TestHostLimit(t *testing.T) {
	l, now := newHostLimit(), time.Unix(1000, 0)
	for range 1000 {
		l.allow("flood", now)
	}
	if l.allow("flood", now) || !l.allow("honest", now) {
		t.Error("one host keeps another one out")
	}
	for i := range 3 * maxLimited {
		l.allow(strconv.Itoa(i), now.Add(time.Duration(i)*time.Millisecond))
	}
	if len(l.hosts) > maxLimited || !l.allow("honest", now.Add(time.Minute)) {
		t.Errorf("%d hosts are told apart", len(l.hosts))
	}
}

func TestRateLimit(t *testing.T) {
	l := newRateLimit(2, 3)
	now := time.Unix(1000, 0)
	allowed := func(at time.Time) (n int) {
		for l.allow(at) {
			n++
		}
		return n
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{0, 3}, {time.Second, 2}, {500 * time.Millisecond, 1}, {time.Hour, 3}} {
		now = now.Add(c.after)
		if got := allowed(now); got != c.want {
			t.Errorf("after %s: %d allowed, want %d", c.after, got, c.want)
		}
	}
}

func TestTokenRoundTrip(t *testing.T) {
	ca := newTestCA(t)
	tok := newTestToken(t, ca)
	for name, text := range map[string]string{
		"plain": tok.String(), "upper case": strings.ToUpper(tok.String()),
		"wrapped by a mail program": " " + tok.String()[:40] + "\n  " + tok.String()[40:] + "\n",
	} {
		got, err := ParseToken(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.ID != tok.ID || !bytes.Equal(got.Secret, tok.Secret) || got.Fingerprint != tok.Fingerprint {
			t.Errorf("%s: %#v, want %#v", name, got, tok)
		}
	}
	if other := newTestToken(t, ca); other.ID == tok.ID || bytes.Equal(other.Secret, tok.Secret) {
		t.Error("two tokens are alike")
	}
}

// Any single changed, lost or doubled character is noticed.
func TestTokenTypos(t *testing.T) {
	text := newTestToken(t, newTestCA(t)).String()
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(len(tokenPrefix), len(text)-1).Draw(t, "at")
		var bad string
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			c := rapid.SampledFrom([]byte("abcdefghijklmnopqrstuvwxyz0123456789-_")).Draw(t, "char")
			if c == text[i] {
				t.Skip("no change")
			}
			bad = text[:i] + string(c) + text[i+1:]
		case 1:
			bad = text[:i] + text[i+1:]
		case 2:
			bad = text[:i] + text[i:i+1] + text[i:]
		}
		_, err := ParseToken(bad)
		var e *TokenError
		if !errors.As(err, &e) || !e.Typo {
			t.Fatalf("%s: %v", bad, err)
		}
	})
	for _, foreign := range []string{"", "hunter2", "10.0.0.1:7946", "gs2-abc"} {
		_, err := ParseToken(foreign)
		if e := wantError[*TokenError](t, err); e.Typo {
			t.Errorf("%q is no typo", foreign)
		}
	}
}

func TestStatusThere(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	ask := func(failure error) error {
		s := start(t, Config{Identity: ca.identity(t, "n-1"), ClusterID: ca.id, Self: "n-1", Resolve: b.resolve}, failure)
		b.set("n-1", s.Addr().String())
		cc, err := s.Dial(testContext(t), "n-1")
		if err != nil {
			t.Fatal(err)
		}
		_, err = pb.NewClusterClient(cc).Propose(testContext(t), &pb.ProposeRequest{})
		return err
	}
	err := ask(&cluster.NotLeaderError{Leader: "n-7"})
	if e := wantError[*cluster.NotLeaderError](t, err); e.Leader != "n-7" {
		t.Errorf("leader %s", e.Leader)
	}
	for _, sentinel := range []error{cluster.ErrNoQuorum, cluster.ErrNotMember, context.DeadlineExceeded, context.Canceled} {
		if err := ask(sentinel); !errors.Is(err, sentinel) {
			t.Errorf("%v came back as %v", sentinel, err)
		}
	}
	for _, sentinel := range []error{cluster.ErrNoQuorum, context.DeadlineExceeded, status.Error(codes.DataLoss, "gone")} {
		err := ask(cluster.NotCommitted(sentinel))
		if !errors.Is(err, cluster.ErrNotCommitted) || errors.Is(sentinel, cluster.ErrNoQuorum) != errors.Is(err, cluster.ErrNoQuorum) {
			t.Errorf("%v, of which nothing was committed, came back as %v", sentinel, err)
		}
		// Passed on by a node that knows less, it must not say so any more.
		if err := ask(cluster.OutcomeUnknown(err)); errors.Is(err, cluster.ErrNotCommitted) {
			t.Errorf("an unknown outcome came back as %v", err)
		}
	}
	if err := ask(errors.New("disk on fire")); err == nil || err.Error() != "disk on fire" {
		t.Errorf("a plain error came back as %v", err)
	}
	if err := ask(status.Error(codes.DataLoss, "gone")); status.Code(err) != codes.DataLoss {
		t.Errorf("a status came back as %v", err)
	}
}

func TestSignNodeRefuses(t *testing.T) {
	ca := newTestCA(t)
	if _, err := (CA{ClusterID: ca.id, Cert: ca.cert, Key: ca.key}).Sign([]byte("rubbish"), "n-1", "gw1", time.Now()); err == nil {
		t.Error("rubbish was signed")
	}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	tampered := bytes.Clone(csr)
	tampered[len(tampered)-1] ^= 1
	if _, err := (CA{ClusterID: ca.id, Cert: ca.cert, Key: ca.key}).Sign(tampered, "n-1", "gw1", time.Now()); err == nil {
		t.Error("a request that its key did not sign was signed")
	}
	if _, err := (CA{ClusterID: ca.id, Cert: ca.cert, Key: ca.key}).Sign(csr, "", "gw1", time.Now()); err == nil {
		t.Error("a certificate without an id")
	}
	// Never longer than the CA.
	root, err := firstCert(ca.cert)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := (CA{ClusterID: ca.id, Cert: ca.cert, Key: ca.key}).Sign(csr, "n-1", "gw1", root.NotAfter.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	c, err := firstCert(cert)
	if err != nil {
		t.Fatal(err)
	}
	if c.NotAfter.After(root.NotAfter) {
		t.Errorf("valid to %s, its CA to %s", c.NotAfter, root.NotAfter)
	}
}

func TestIdentityFiles(t *testing.T) {
	ca := newTestCA(t)
	f := ca.issue(t, "n-1", time.Now())
	if st, err := os.Stat(f.Key); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", st.Mode(), err)
	}
	if c, id, name := mustLoad(t, f).Subject(); c != ca.id || id != "n-1" || name != "gw-n-1" {
		t.Errorf("subject %s %s %s", c, id, name)
	}
	other := f
	other.CA = newTestCA(t).issue(t, "n-1", time.Now()).CA
	if _, err := LoadIdentity(other); err == nil || !strings.Contains(err.Error(), "not signed by") {
		t.Errorf("a foreign CA: %v", err)
	}
	other = f
	other.Key = ca.issue(t, "n-1", time.Now()).Key
	if _, err := LoadIdentity(other); err == nil || !strings.Contains(err.Error(), "belong together") {
		t.Errorf("a foreign key: %v", err)
	}
}
