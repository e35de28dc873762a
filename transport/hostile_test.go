package transport

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// logbook keeps what a server logs.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// count tells how many lines hold all the words.
func (l *logbook) count(words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

// once waits until a refusal stands in the log, and makes sure that it stands
// there once.
func (l *logbook) once(t *testing.T, words ...string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); l.count(words...) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := l.count(words...); n != 1 {
		t.Errorf("%d lines with %q, want one:\n%s", n, words, l.b.String())
	}
}

// loggedNode is startNode with a log.
func loggedNode(t *testing.T, ca testCA, b *book, change func(*Config)) (*Server, *logbook) {
	t.Helper()
	l := &logbook{}
	cfg := Config{Identity: ca.identity(t, "n-1"), ClusterID: ca.id, Self: "n-1", Resolve: b.resolve, Member: b.member, Log: l.logger()}
	if change != nil {
		change(&cfg)
	}
	s := start(t, cfg, nil)
	b.set("n-1", s.Addr().String())
	return s, l
}

func TestRefusalsAreToldOnceAndThenCounted(t *testing.T) {
	var l logbook
	now := time.Unix(1000, 0)
	r := NewRefusals(l.logger())
	r.now = func() time.Time { return now }
	for range 1_000_000 {
		r.Note("n-1", "content", errors.New("wrong digest"))
	}
	r.Note("n-2", "content", errors.New("wrong digest"))
	r.Note("n-1", "hello", errors.New("a lie"))
	if n := l.count(""); n != 3 {
		t.Errorf("%d lines:\n%s", n, l.b.String())
	}
	now = now.Add(refusalEvery)
	r.Note("n-1", "content", errors.New("wrong digest"))
	if l.count("n-1", "content", "times=1000000") != 1 {
		t.Errorf("no count:\n%s", l.b.String())
	}
	for i := range 10 * maxRefusals { // strangers, each from another address
		r.Note(string(rune('a'+i)), "handshake", errors.New("rubbish"))
	}
	if len(r.known) > maxRefusals+8 || l.count("") > maxRefusals+8 {
		t.Errorf("%d are known, %d lines", len(r.known), l.count(""))
	}
}

// A removed member's open connections are cut, whatever it is doing.
func TestRemovedMemberIsCutInTheMiddleOfAWord(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s1, s2, s3 := startNode(t, ca, b, "n-1"), startNode(t, ca, b, "n-2"), startNode(t, ca, b, "n-3")
	ctx := testContext(t)
	open := func(s *Server) pb.Content_PushClient {
		cc, err := s.Dial(ctx, "n-1")
		if err != nil {
			t.Fatal(err)
		}
		stream, err := pb.NewContentClient(cc).Push(ctx)
		if err == nil {
			err = stream.Send(&pb.PushRequest{End: 7})
		}
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	gone, stays := open(s2), open(s3)
	raftGone, err := s2.Raft().Dial("n-1", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer raftGone.Close()
	if _, err := hello(t, s1, "n-2"); err != nil {
		t.Fatal(err)
	}
	b.remove("n-2")
	s1.Prune()
	if _, err := gone.Recv(); err == nil { // silent, and cut nevertheless
		t.Error("the removed member's stream goes on")
	}
	_ = raftGone.SetDeadline(time.Now().Add(time.Minute))
	if _, err := raftGone.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the removed member's Raft connection goes on: %v", err)
	}
	if err := stays.Send(&pb.PushRequest{End: 8}); err != nil {
		t.Fatal(err)
	}
	if r, err := stays.Recv(); err != nil || r.GetBatch() != 8 {
		t.Errorf("the other member's stream: %v %v", r, err)
	}
	if len(s1.peers.known()) != 0 {
		t.Errorf("a connection to the removed member is kept")
	}
}

func TestConnectionEndsWithItsCertificate(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	var ended atomic.Bool
	_, l := loggedNode(t, ca, b, func(c *Config) { // a clock that is near the end
		end := time.Now().Add(nodeLife)
		c.Now = func() time.Time { // it stands still: the handshake may take its time
			if ended.Load() {
				return end.Add(time.Second)
			}
			return end.Add(-2 * time.Second)
		}
		c.Identity = mustLoad(t, ca.issue(t, "n-1", time.Now().Add(nodeLife/2)))
	})
	id := ca.identity(t, "n-2")
	addr, _ := b.resolve("n-1")
	d := dialer{clusterID: ca.id, identity: id, timeout: time.Minute}
	// The caller's own look at the callee's certificate is not what is tested.
	conf := clientConfig(protoRaft)
	conf.Certificates = []tls.Certificate{id.now.Load().cert}
	c, g, err := shake(testContext(t), d.timeout, addr, "", conf)
	if err != nil || g.Verdict != verdictOK {
		t.Fatal(g, err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the connection outlives its certificate: %v", err)
	}
	ended.Store(true)
	for range 3 {
		if _, g, err := shake(testContext(t), d.timeout, addr, "", conf); err != nil || g.Verdict != verdictClock {
			t.Errorf("expired: %q, %v", g.Verdict, err)
		}
	}
	l.once(t, "connection: clock", "n-2")
}

// The server's clock judges, not the wall's.
func TestCertificatesAreJudgedByTheClock(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	now := time.Now()
	var clock atomic.Int64
	_, l := loggedNode(t, ca, b, func(c *Config) {
		c.Now = func() time.Time { return now.Add(time.Duration(clock.Load())) }
	})
	addr, _ := b.resolve("n-1")
	conf := clientConfig(protoGRPC)
	conf.Certificates = []tls.Certificate{ca.identity(t, "n-2").now.Load().cert}
	for _, c := range []struct {
		off  time.Duration
		want verdict
	}{{0, verdictOK}, {2 * nodeLife, verdictClock}, {-2 * nodeBackdate, verdictClock}, {nodeLife - time.Hour, verdictOK}} {
		clock.Store(int64(c.off))
		conn, g, err := shake(testContext(t), time.Minute, addr, "", conf)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if g.Verdict != c.want {
			t.Errorf("a clock that is off by %s: %q, want %q", c.off, g.Verdict, c.want)
		}
	}
	l.once(t, "connection: clock", "n-2")
}

// Everybody who is refused at the door is told why, and logged once.
func TestWhoIsRefusedIsLoggedOnce(t *testing.T) {
	ca, theirs, b := newTestCA(t), newTestCA(t), newBook()
	b.remove("n-removed")
	_, l := loggedNode(t, ca, b, nil)
	addr, _ := b.resolve("n-1")
	for name, c := range map[string]struct {
		cert tls.Certificate
		want verdict
		says string
	}{
		"removed":       {ca.identity(t, "n-removed").now.Load().cert, verdictNotMember, "n-removed"},
		"expired":       {mustLoad(t, ca.issue(t, "n-old", time.Now().Add(-2*nodeLife))).now.Load().cert, verdictClock, "n-old"},
		"not yet valid": {mustLoad(t, ca.issue(t, "n-early", time.Now().Add(48*time.Hour))).now.Load().cert, verdictClock, "n-early"},
		"other cluster": {theirs.identity(t, "n-2").now.Load().cert, verdictWrongCluster, "127.0.0.1"},
	} {
		for range 5 {
			conf := clientConfig(protoGRPC)
			conf.Certificates = []tls.Certificate{c.cert}
			conn, g, err := shake(testContext(t), time.Minute, addr, "", conf)
			if err != nil {
				t.Fatal(name, err)
			}
			_ = conn.Close()
			if g.Verdict != c.want {
				t.Errorf("%s: verdict %q, want %q", name, g.Verdict, c.want)
			}
		}
		l.once(t, "connection: "+string(c.want), c.says)
	}
	// No certificate at all, an old TLS, no TLS.
	for name, conf := range map[string]*tls.Config{
		"no certificate": clientConfig(protoGRPC),
		"TLS 1.2":        {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{protoGRPC}}, //nolint:gosec // a stranger
		"no protocol":    {InsecureSkipVerify: true},                                                                //nolint:gosec // a stranger
	} {
		c, err := tls.Dial("tcp", addr, conf)
		if err == nil { // TLS 1.3: the refusal comes with the first read
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			_, err = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		if err == nil || isTimeout(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l.once(t, "handshake")
}

// Thousands of connections that say nothing, or rubbish, hold no member up.
func TestHalfOpenConnectionsHoldNobodyUp(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s, l := loggedNode(t, ca, b, nil)
	s2 := startNode(t, ca, b, "n-2")
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}} // another host
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for i := range 3000 {
		c, err := from.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		switch i % 3 {
		case 0:
			_, _ = c.Write([]byte{0x16}) // the first byte of a handshake
		case 1:
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
		}
		if i%1000 == 999 {
			s2.Forget("n-1")
			if _, err := hello(t, s2, "n-1"); err != nil {
				t.Errorf("beside %d connections: %v", i+1, err)
			}
		}
	}
	s.pending.mu.Lock()
	pending := s.pending.order.Len()
	s.pending.mu.Unlock()
	if pending > s.cfg.MaxHandshakes {
		t.Errorf("%d handshakes at once", pending)
	}
	l.once(t, "127.0.0.2", "handshake")
}

// A host that floods us pushes out its own handshakes, not another's.
func TestHandshakesOfAFloodPushOutTheirOwn(t *testing.T) {
	s := conns{max: 4}
	conn := func(host string) *fakeConn { return &fakeConn{host: host} }
	honest := conn("10.0.0.1")
	if _, ok := s.addEvicting(honest); !ok {
		t.Fatal("refused")
	}
	var flood []*fakeConn
	for range 10 {
		c := conn("10.6.6.6")
		flood = append(flood, c)
		s.addEvicting(c)
	}
	if honest.closed || !flood[0].closed || flood[9].closed || s.order.Len() != 4 {
		t.Errorf("honest %v, first %v, last %v, %d open", honest.closed, flood[0].closed, flood[9].closed, s.order.Len())
	}
}

type fakeConn struct {
	net.Conn
	host   string
	closed bool
}

func (c *fakeConn) Close() error         { c.closed = true; return nil }
func (c *fakeConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.host), Port: 1} }

// A member that opens connection after connection pushes out its own.
func TestConnectionsOfOneMemberAreFew(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := startNode(t, ca, b, "n-1")
	s3 := startNode(t, ca, b, "n-3")
	if _, err := hello(t, s3, "n-1"); err != nil {
		t.Fatal(err)
	}
	d := dialer{clusterID: ca.id, identity: ca.identity(t, "n-2"), timeout: time.Minute}
	var first net.Conn
	for i := range 5 * maxRafting {
		for _, proto := range []string{protoGRPC, protoRaft} {
			c, _, err := d.dial(testContext(t), s.Addr().String(), proto, "n-1")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if i == 0 && proto == protoRaft {
				first = c
			}
		}
	}
	_ = first.SetDeadline(time.Now().Add(time.Minute))
	if _, err := first.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the first connection was not pushed out: %v", err)
	}
	s.admitted.mu.Lock()
	calling, rafting := len(s.admitted.of[admittedKey{"n-2", protoGRPC}]), len(s.admitted.of[admittedKey{"n-2", protoRaft}])
	s.admitted.mu.Unlock()
	if calling > maxCalling || rafting > maxRafting || calling == 0 {
		t.Errorf("%d for calls and %d for Raft are open", calling, rafting)
	}
	if _, err := hello(t, s3, "n-1"); err != nil {
		t.Errorf("another member: %v", err)
	}
}

// What is too large or compressed is refused before it is unpacked, and said once.
func TestBombsAreRefused(t *testing.T) {
	if encoding.GetCompressor("gzip") != nil {
		t.Error("something links a compressor into gatesync: a message may be a bomb")
	}
	ca, b := newTestCA(t), newBook()
	_, l := loggedNode(t, ca, b, nil)
	addr, _ := b.resolve("n-1")
	id := ca.identity(t, "n-2")
	ctx := testContext(t)
	cc, _, err := DialAs(ctx, addr, id, ca.id, Instance{})
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	cluster := pb.NewClusterClient(cc)
	for range 20 {
		large := &pb.HelloRequest{State: &pb.NodeState{Version: strings.Repeat("x", maxRequest)}}
		if _, err := cluster.Hello(ctx, large); status.Code(err) != codes.ResourceExhausted {
			t.Fatalf("a message of %d bytes: %v", maxRequest, err)
		}
	}
	l.once(t, "n-2", "Cluster/Hello", "larger than max")
	headers := metadata.AppendToOutgoingContext(ctx, "x", strings.Repeat("x", 2*maxHeader))
	if _, err := cluster.Hello(headers, &pb.HelloRequest{}, grpc.WaitForReady(false)); err == nil {
		t.Error("headers without end were taken")
	}
	if code := rawCall(t, addr, id, ca, "gzip", 1, bomb(t)); code != "12" { // UNIMPLEMENTED
		t.Errorf("a compressed message: status %q", code)
	}
	if code := rawCall(t, addr, id, ca, "", 1, bomb(t)); code != "13" && code != "12" { // INTERNAL: no encoding was named
		t.Errorf("a compressed message of no encoding: status %q", code)
	}
	if code := rawCall(t, addr, id, ca, "", 0, binary.BigEndian.AppendUint32(nil, 1<<31)); code == "0" || code == "" {
		t.Errorf("a message that says it has 2 GB: status %q", code)
	}
}

// bomb is a gigabyte in a megabyte.
func bomb(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.CopyN(w, zeros{}, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(b.Len())), b.Bytes()...)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// rawCall calls Hello with a frame that no gRPC client would send.
func rawCall(t *testing.T, addr string, id *Identity, ca testCA, enc string, flag byte, frame []byte) string {
	t.Helper()
	d := dialer{clusterID: ca.id, identity: id, timeout: time.Minute}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true) // the connection below it is encrypted
	tr := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, _, err := d.dial(ctx, addr, protoGRPC, "")
		return c, err
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, "http://peer/gatesync.v1.Cluster/Hello",
		bytes.NewReader(append([]byte{flag}, frame...)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	if enc != "" {
		req.Header.Set("Grpc-Encoding", enc)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return "reset"
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	if s := res.Trailer.Get("Grpc-Status"); s != "" {
		return s
	}
	return res.Header.Get("Grpc-Status")
}
