package fallback

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memStore is a Store in memory that tells flushed from unflushed, and whose
// operations a test may fail or hold up.
type memStore struct {
	id      string
	onPut   func(manifest.BlobRef) error // before a blob is read; may block
	onRest  func(manifest.BlobRef)       // while what is here is digested; may block
	onFlush func() error
	onOpen  func(manifest.Digest, Reader) Reader

	mu      sync.Mutex
	blobs   map[manifest.Digest][]byte
	partial map[manifest.Digest][]byte // of large ones: what came before a cut
	durable map[manifest.Digest]bool
	puts    map[manifest.Digest]int
	flushes int
}

func newMemStore(id string) *memStore {
	return &memStore{id: id, blobs: map[manifest.Digest][]byte{}, partial: map[manifest.Digest][]byte{}, durable: map[manifest.Digest]bool{}, puts: map[manifest.Digest]int{}}
}

func (s *memStore) ID() string { return s.id }

func (s *memStore) Has(d manifest.Digest) bool { _, ok := s.Size(d); return ok }

func (s *memStore) Size(d manifest.Digest) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[d]
	return int64(len(b)), ok
}

func (s *memStore) Open(d manifest.Digest) (Reader, error) {
	s.mu.Lock()
	b, ok := s.blobs[d]
	s.mu.Unlock()
	if !ok {
		return nil, errors.New("not found")
	}
	var r Reader = memReader{bytes.NewReader(b)}
	if s.onOpen != nil { // without the lock: who waits for one does not let virtual time pass
		r = s.onOpen(d, r)
	}
	return r, nil
}

func (s *memStore) PutKnown(ref manifest.BlobRef, r io.Reader) error {
	if s.onPut != nil {
		if err := s.onPut(ref); err != nil {
			return err
		}
	}
	return s.put(ref, nil, r)
}

func (s *memStore) Begun(d manifest.Digest) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.partial[d]))
}

func (s *memStore) PutRest(ref manifest.BlobRef, begun int64, r io.Reader) error {
	s.mu.Lock()
	b := s.partial[ref.Digest]
	delete(s.partial, ref.Digest)
	s.mu.Unlock()
	if int64(len(b)) != begun {
		return blob.ErrNotBegun
	}
	if s.onRest != nil {
		s.onRest(ref)
	}
	return s.put(ref, b, r)
}

// put takes content in whose first bytes are known.
func (s *memStore) put(ref manifest.BlobRef, first []byte, r io.Reader) error {
	rest, err := io.ReadAll(io.LimitReader(r, ref.Size-int64(len(first))+1))
	b := append(first[:len(first):len(first)], rest...)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if ref.Size > smallBlob && len(b) > len(s.partial[ref.Digest]) {
			s.partial[ref.Digest] = b
		}
		return err
	}
	if int64(len(b)) != ref.Size || manifest.DigestOf(b) != ref.Digest {
		return fmt.Errorf("the content does not have the announced digest: %w", blob.ErrMismatch)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[ref.Digest] = b
	s.puts[ref.Digest]++
	return nil
}

type memReader struct{ *bytes.Reader }

func (memReader) Close() error { return nil }

func (s *memStore) Flush() error {
	if s.onFlush != nil {
		if err := s.onFlush(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushes++
	for d := range s.blobs {
		s.durable[d] = true
	}
	return nil
}

func (s *memStore) flushCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushes
}

// holds tells whether the store durably has all of refs.
func (s *memStore) holds(refs []manifest.BlobRef) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range refs {
		if !s.durable[r.Digest] || int64(len(s.blobs[r.Digest])) != r.Size {
			return false
		}
	}
	return true
}

func (s *memStore) add(b []byte) manifest.BlobRef {
	ref := manifest.BlobRef{Digest: manifest.DigestOf(b), Size: int64(len(b))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[ref.Digest] = b
	return ref
}

// content makes n different blobs of a size.
func content(n, size int, seed uint64) [][]byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(size))
	r := rand.NewChaCha8(key)
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, size)
		_, _ = r.Read(out[i]) // never fails
	}
	return out
}

func (s *memStore) addAll(all [][]byte) (refs []manifest.BlobRef) {
	for _, b := range all {
		refs = append(refs, s.add(b))
	}
	return refs
}

// testNet is where the nodes of a test find each other.
type testNet struct {
	t     tester
	mu    sync.Mutex
	conns map[cluster.NodeID]*grpc.ClientConn
}

// tester is a *testing.T or a *rapid.T.
type tester interface {
	Helper()
	Cleanup(func())
	Fatal(...any)
	Error(...any)
}

func newNet(t tester) *testNet {
	n := &testNet{t: t, conns: map[cluster.NodeID]*grpc.ClientConn{}}
	t.Cleanup(func() {
		for _, c := range n.conns {
			_ = c.Close()
		}
	})
	return n
}

func (n *testNet) Conn(_ context.Context, id cluster.NodeID) (grpc.ClientConnInterface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.conns[id]
	if c == nil {
		return nil, fmt.Errorf("no such node %s", id)
	}
	return c, nil
}

// disconnect cuts the connections to a node.
func (n *testNet) disconnect(id cluster.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.conns[id].Close()
	delete(n.conns, id)
}

// serve runs a Content service under an id and counts the messages it receives.
func (n *testNet) serve(id cluster.NodeID, service pb.ContentServer) *atomic.Int64 {
	n.t.Helper()
	l := bufconn.Listen(256 << 10) // in memory: virtual time waits for it
	messages := new(atomic.Int64)
	s := grpc.NewServer(grpc.WaitForHandlers(true), grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		return next(srv, countingStream{ss, messages})
	}))
	pb.RegisterContentServer(s, service)
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	n.t.Cleanup(func() { s.Stop(); <-served })
	c, err := grpc.NewClient("passthrough:///"+string(id), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[id] = c
	return messages
}

type countingStream struct {
	grpc.ServerStream
	n *atomic.Int64
}

func (s countingStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.n.Add(1)
	}
	return err
}

// testNode is a Push with its store, reachable in a testNet.
type testNode struct {
	*Push
	store    *memStore
	messages *atomic.Int64 // received by its service
}

// timeless makes a subtest one of virtual time: a busy machine is no peer that
// hangs.
func timeless(test func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) { synctest.Test(t, test) }
}

// short are limits for tests in which somebody stalls.
func short() limits {
	return limits{stall: 600 * time.Millisecond, hedge: 100 * time.Millisecond, idle: time.Minute, flush: 300 * time.Millisecond}
}

func (n *testNet) node(id cluster.NodeID, change ...func(*Push)) *testNode {
	n.t.Helper()
	s := newMemStore("s-" + string(id))
	p := NewPush(id, s, n, nil)
	for _, c := range change {
		c(p)
	}
	t := &testNode{Push: p, store: s, messages: n.serve(id, &server{push: p})}
	n.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return t
}

func withLimits(l limits) func(*Push) { return func(p *Push) { p.limits = l } }

func testContext(t tester) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func wantError[E error](t *testing.T, err error) E {
	t.Helper()
	var want E
	if !errors.As(err, &want) {
		t.Fatalf("got %T %v, want a %T", err, err, want)
	}
	return want
}

// nodes makes ids n-1 … n-n.
func nodes(ids ...string) (out []cluster.NodeID) {
	for _, id := range ids {
		out = append(out, cluster.NodeID(id))
	}
	return out
}
