package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
)

// Config is what a Server needs.
type Config struct {
	Listen    string // host:port
	Identity  *Identity
	ClusterID string
	Self      cluster.NodeID
	// Resolve says where a node is; asked anew for each connection attempt.
	Resolve func(cluster.NodeID) (addr string, ok bool)
	// Found and Failed are told how each attempt to connect to a member ended:
	// whether it was met at the address. What Resolve says next may depend on it.
	Found, Failed func(id cluster.NodeID, addr string)
	// Member refuses removed nodes: it is asked at each handshake and for each
	// call and message, so it has to be cheap. A node whose log lags must answer
	// true for nodes that it has not heard of, or it could never catch up: a
	// certificate of this cluster is what admits. nil admits everybody who has one.
	Member func(cluster.NodeID) bool
	// Lookup finds a node by the common name of its certificate, with an own
	// PKI whose certificates hold no gatesync URI. May be nil otherwise.
	Lookup func(name string) (cluster.NodeID, bool)
	// Formats keeps nodes apart that do not understand each other's log. The
	// zero value lets everybody through.
	Formats Formats
	// Instance is this run of this node; Instances judges those of the others
	// (nil: nobody does).
	Instance  Instance
	Instances *Instances
	// Proof says that the incarnation of Instance exists (CA.SignLife); "" where
	// this node cannot prove it. It is asked at each handshake. May be nil.
	Proof func() string
	// Refused is told what a member says of this very node: an
	// *IncarnationError where the cluster has a newer incarnation, a *TwinError
	// or a *WentBackError. May be nil; must not block.
	Refused func(error)
	Log     *slog.Logger // nil: silent
	// Now is the clock that certificates are judged by; nil: the system's.
	Now func() time.Time

	HandshakeTimeout time.Duration // 0: 10 s
	MaxHandshakes    int           // at a time; 0: 128. More push out the oldest.
	MaxJoins         int           // connections of joiners at a time; 0: 32. More push out the oldest without a call.
}

// Server is the one port of a node, and its connections to the others.
type Server struct {
	cfg      Config
	listener net.Listener
	members  *grpc.Server
	joins    *grpc.Server
	toGRPC   *handoff
	toJoin   *handoff
	raft     *streamLayer
	pending  *conns // handshakes
	joiners  *conns
	admitted admitted
	refusals *Refusals
	peers    peers
	live     liveConns // of members, in both directions

	stop     chan struct{}
	stopOnce sync.Once
	wg       sync.WaitGroup // Run and everything it starts
	mu       sync.Mutex     // guards wg.Add against Close's Wait
	stopped  bool
}

// Listen opens the port. Nothing is accepted before Run; Dial and Raft().Dial
// work at once.
func Listen(cfg Config) (*Server, error) {
	if cfg.Identity == nil || cfg.ClusterID == "" || cfg.Self == "" {
		return nil, errors.New("transport: an identity, a cluster id and a node id are needed")
	}
	if cfg.Member == nil {
		cfg.Member = func(cluster.NodeID) bool { return true }
	}
	if cfg.Proof == nil {
		cfg.Proof = func() string { return "" }
	}
	if cfg.Resolve == nil {
		cfg.Resolve = func(cluster.NodeID) (string, bool) { return "", false }
	}
	if cfg.Found == nil {
		cfg.Found = func(cluster.NodeID, string) {}
	}
	if cfg.Failed == nil {
		cfg.Failed = func(cluster.NodeID, string) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = defaultHandshake
	}
	if cfg.MaxHandshakes <= 0 {
		cfg.MaxHandshakes = 128
	}
	if cfg.MaxJoins <= 0 {
		cfg.MaxJoins = 32
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w: choose another host:port, or stop what uses this one", cfg.Listen, err)
	}
	refusals := NewRefusals(cfg.Log)
	s := &Server{
		cfg: cfg, listener: l, refusals: refusals,
		members: newMemberServer(cfg.Member, refusals), joins: newJoinServer(),
		toGRPC: newHandoff(l.Addr()), toJoin: newHandoff(l.Addr()),
		pending: &conns{max: cfg.MaxHandshakes}, joiners: &conns{max: cfg.MaxJoins, spare: isJoining},
		stop: make(chan struct{}),
	}
	s.raft = newStreamLayer(s)
	s.peers.open = s.openPeer
	return s, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// GRPC is the server that members call: register services before Run.
func (s *Server) GRPC() *grpc.Server { return s.members }

// JoinGRPC is the server that joiners call, without a certificate: register
// Join, and nothing else, before Run.
func (s *Server) JoinGRPC() *grpc.Server { return s.joins }

// Refusals is where the server logs what it refuses; handlers may, too.
func (s *Server) Refusals() *Refusals { return s.refusals }

// Raft is the network of Raft: an address is a node's id.
func (s *Server) Raft() raft.StreamLayer { return s.raft }

// Run accepts connections until ctx ends or Close is called. It returns nil
// then, and an error where the port cannot be used any more. Call it once.
func (s *Server) Run(ctx context.Context) error {
	if !s.begin() {
		return ErrClosed
	}
	defer s.wg.Done()
	defer context.AfterFunc(ctx, s.halt)()
	accepted := make(chan error, 1)
	if !s.spawn(func() {
		accepted <- s.accept()
		s.halt()
	}) {
		return ErrClosed
	}
	s.spawn(func() { _ = s.members.Serve(s.toGRPC) })
	s.spawn(func() { _ = s.joins.Serve(s.toJoin) })
	<-s.stop
	s.shut()
	return <-accepted
}

// Close ends everything and waits: connections are cut, and handlers see their
// contexts end. Handlers must therefore heed them.
func (s *Server) Close() error {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.halt()
	s.shut()
	s.wg.Wait()
	return nil
}

func (s *Server) halt() { s.stopOnce.Do(func() { close(s.stop) }) }

// shut closes all that blocks; it may be called more than once.
func (s *Server) shut() {
	_ = s.listener.Close()
	s.pending.closeAll()
	_ = s.raft.Close()
	_ = s.toGRPC.Close()
	_ = s.toJoin.Close()
	s.peers.close()
	s.members.Stop()
	s.joins.Stop()
}

// begin counts a goroutine that Close waits for; false once closed.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.wg.Add(1)
	return true
}

// spawn runs f in a goroutine that Close waits for.
func (s *Server) spawn(f func()) bool {
	if !s.begin() {
		return false
	}
	go func() {
		defer s.wg.Done()
		f()
	}()
	return true
}

// accept takes connections and never waits for any of them.
func (s *Server) accept() error {
	delay := time.Duration(0)
	for {
		c, err := s.listener.Accept()
		if err != nil {
			select {
			case <-s.stop:
				return nil
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("listen on %s: %w", s.cfg.Listen, err)
			}
			// Out of file descriptors, or the caller gave up: it passes.
			delay = min(max(2*delay, 10*time.Millisecond), time.Second)
			s.cfg.Log.Warn("cannot accept a connection, trying again", "error", err, "in", delay)
			select {
			case <-time.After(jitter(delay)):
			case <-s.stop:
				return nil
			}
			continue
		}
		delay = 0
		done, ok := s.pending.addEvicting(c)
		if !ok {
			_ = c.Close()
			continue
		}
		if !s.spawn(func() {
			defer done()
			s.admit(c)
		}) {
			_ = c.Close()
			return nil
		}
	}
}
