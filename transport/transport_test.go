package transport

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testCA is a cluster's CA.
type testCA struct {
	id        string
	cert, key []byte
}

func newTestCA(t *testing.T) testCA {
	t.Helper()
	ca := testCA{id: cluster.NewClusterID()}
	var err error
	// Old enough to have signed what has expired since.
	if ca.cert, ca.key, err = newCA(ca.id, time.Now().Add(-5*nodeLife)); err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue writes the files of a node whose certificate was signed at a time.
func (ca testCA) issue(t *testing.T, id cluster.NodeID, at time.Time) Files {
	t.Helper()
	f := FilesIn(filepath.Join(t.TempDir(), "tls"))
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := (CA{ClusterID: ca.id, Cert: ca.cert, Key: ca.key}).Sign(csr, id, "gw-"+string(id), at)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteIdentity(f, ca.cert, cert, key); err != nil {
		t.Fatal(err)
	}
	return f
}

func (ca testCA) identity(t *testing.T, id cluster.NodeID) *Identity {
	t.Helper()
	return mustLoad(t, ca.issue(t, id, time.Now()))
}

func mustLoad(t *testing.T, f Files) *Identity {
	t.Helper()
	i, err := LoadIdentity(f)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// book is an address book and list of removed nodes, shared by the servers of
// a test.
type book struct {
	mu      sync.Mutex
	addrs   map[cluster.NodeID]string
	removed map[cluster.NodeID]bool
}

func newBook() *book {
	return &book{addrs: map[cluster.NodeID]string{}, removed: map[cluster.NodeID]bool{}}
}

func (b *book) resolve(id cluster.NodeID) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.addrs[id]
	return a, ok
}

func (b *book) set(id cluster.NodeID, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addrs[id] = addr
}

func (b *book) remove(id cluster.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.removed[id] = true
}

func (b *book) member(id cluster.NodeID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.removed[id]
}

// peerService answers Hello with the caller's id, and fails Propose with err.
type peerService struct {
	pb.UnimplementedClusterServer
	err error
}

func (peerService) Hello(ctx context.Context, _ *pb.HelloRequest) (*pb.HelloResponse, error) {
	id, ok := Peer(ctx)
	if !ok {
		return nil, errors.New("no peer in the context")
	}
	return &pb.HelloResponse{State: &pb.NodeState{Id: string(id)}}, nil
}

func (s peerService) Propose(context.Context, *pb.ProposeRequest) (*pb.ProposeResponse, error) {
	return nil, s.err
}

// chatter is a Content service whose Push answers each request.
type chatter struct{ pb.UnimplementedContentServer }

func (chatter) Push(s grpc.BidiStreamingServer[pb.PushRequest, pb.PushResponse]) error {
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		if err := s.Send(&pb.PushResponse{Batch: r.GetEnd()}); err != nil {
			return err
		}
	}
}

type joinService struct{ pb.UnimplementedJoinServer }

func (joinService) Join(ctx context.Context, r *pb.JoinRequest) (*pb.JoinResponse, error) {
	if _, ok := Peer(ctx); ok {
		return nil, errors.New("a joiner has no identity")
	}
	if r.GetName() == "slow" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &pb.JoinResponse{ClusterId: r.GetName()}, nil
}

// start runs a server until the test ends.
func start(t *testing.T, cfg Config, err error) *Server {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	s, lerr := Listen(cfg)
	if lerr != nil {
		t.Fatal(lerr)
	}
	pb.RegisterClusterServer(s.GRPC(), peerService{err: err})
	pb.RegisterContentServer(s.GRPC(), chatter{})
	pb.RegisterJoinServer(s.JoinGRPC(), joinService{})
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.Background()) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error("close:", err)
		}
		if err := <-ran; err != nil && !errors.Is(err, ErrClosed) {
			t.Error("run:", err)
		}
	})
	return s
}

// startNode runs a node of a cluster and enters it into the book.
func startNode(t *testing.T, ca testCA, b *book, id cluster.NodeID) *Server {
	t.Helper()
	s := start(t, Config{Identity: ca.identity(t, id), ClusterID: ca.id, Self: id, Resolve: b.resolve, Member: b.member}, nil)
	b.set(id, s.Addr().String())
	return s
}

func hello(t *testing.T, s *Server, to cluster.NodeID) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cc, err := s.Dial(ctx, to)
	if err != nil {
		return "", err
	}
	r, err := pb.NewClusterClient(cc).Hello(ctx, &pb.HelloRequest{})
	return r.GetState().GetId(), err
}

// wantError fails unless err is of type E, and returns it.
func wantError[E error](t *testing.T, err error) E {
	t.Helper()
	var want E
	if !errors.As(err, &want) {
		t.Fatalf("got %T %v, want a %T", err, err, want)
	}
	return want
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestMembersKnowEachOther(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s1, s2 := startNode(t, ca, b, "n-1"), startNode(t, ca, b, "n-2")
	for _, c := range []struct {
		from     *Server
		to, want cluster.NodeID
	}{{s1, "n-2", "n-1"}, {s2, "n-1", "n-2"}, {s1, "n-1", "n-1"}} {
		got, err := hello(t, c.from, c.to)
		if err != nil || got != string(c.want) {
			t.Errorf("hello to %s: caller %q, %v; want %s", c.to, got, err, c.want)
		}
	}
	ctx := testContext(t)
	a, err := s1.Dial(ctx, "n-2")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s1.Dial(ctx, "n-2"); err != nil || again != a {
		t.Errorf("a second Dial made another connection (%v)", err)
	}
}

func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here:", err)
	}
	_ = l.Close()
	ca, b := newTestCA(t), newBook()
	s := start(t, Config{Listen: "[::1]:0", Identity: ca.identity(t, "n-1"), ClusterID: ca.id, Self: "n-1", Resolve: b.resolve}, nil)
	b.set("n-1", s.Addr().String())
	if _, err := hello(t, s, "n-1"); err != nil {
		t.Error(err)
	}
	cc, _, err := DialAs(testContext(t), s.Addr().String(), ca.identity(t, "n-2"), ca.id, Instance{})
	if err != nil {
		t.Fatal(err)
	}
	_ = cc.Close()
}

func TestUnknownAddress(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := startNode(t, ca, b, "n-1")
	_, err := s.Dial(testContext(t), "n-9")
	if e := wantError[*UnknownAddressError](t, err); e.Node != "n-9" {
		t.Errorf("names %s", e.Node)
	}
}

func TestUnreachable(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := startNode(t, ca, b, "n-1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.set("n-2", l.Addr().String())
	_ = l.Close()
	_, err = hello(t, s, "n-2")
	if e := wantError[*UnreachableError](t, err); e.Node != "n-2" || e.Addr != l.Addr().String() {
		t.Errorf("names %s at %s", e.Node, e.Addr)
	}
}

// A node that moved is found at its new address although the old one is still
// open.
func TestMovedNode(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := startNode(t, ca, b, "n-1")
	startNode(t, ca, b, "n-2")
	if _, err := hello(t, s, "n-2"); err != nil {
		t.Fatal(err)
	}
	moved := startNode(t, ca, b, "n-2") // enters its own address
	id, err := hello(t, s, "n-2")
	for ctx := testContext(t); err != nil && ctx.Err() == nil; {
		id, err = hello(t, s, "n-2") // a call may meet the cut connection
	}
	if err != nil || id != "n-1" {
		t.Fatalf("hello after the move: %q, %v", id, err)
	}
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	l := s.peers.links["n-2"]
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.addr != moved.Addr().String() {
		t.Errorf("still connected to %s, moved to %s", l.addr, moved.Addr())
	}
}

func TestStaleAddress(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s1 := startNode(t, ca, b, "n-1")
	s2 := startNode(t, ca, b, "n-2")
	b.set("n-3", s2.Addr().String())
	_, err := hello(t, s1, "n-3")
	if e := wantError[*PeerMismatchError](t, err); e.Want != "n-3" || e.Have != "n-2" {
		t.Errorf("wanted %s, have %s", e.Want, e.Have)
	}
}

func TestListenTwice(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	s := startNode(t, ca, b, "n-1")
	if s, err := Listen(Config{Listen: s.Addr().String(), Identity: ca.identity(t, "n-2"), ClusterID: ca.id, Self: "n-2"}); err == nil {
		_ = s.Close()
		t.Fatal("two servers on one port")
	}
}

func TestCloseBeforeRun(t *testing.T) {
	ca := newTestCA(t)
	s, err := Listen(Config{Listen: "127.0.0.1:0", Identity: ca.identity(t, "n-1"), ClusterID: ca.id, Self: "n-1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("run after close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error("a second close:", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ca := newTestCA(t)
	s, err := Listen(Config{Listen: "127.0.0.1:0", Identity: ca.identity(t, "n-1"), ClusterID: ca.id, Self: "n-1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("run: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
