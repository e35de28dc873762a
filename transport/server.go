package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
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

// admit does the handshake of one connection and hands it to whom it is for,
// all within the timeout.
func (s *Server) admit(raw net.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.HandshakeTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	_ = raw.SetDeadline(deadline)
	from := hostOf(raw)
	var is Instance
	var proof string
	c := tls.Server(raw, serverConfig(s.cfg.Identity.now.Load(), &is, &proof))
	if err := c.HandshakeContext(ctx); err != nil {
		s.refusals.Note(from, "handshake", err)
		_ = raw.Close()
		return
	}
	cs := c.ConnectionState()
	to := &peerConn{Conn: c}
	v, other := verdictOK, ""
	var err error
	switch cs.NegotiatedProtocol {
	case protoJoin:
		remove, ok := s.joiners.addEvicting(to)
		if !ok {
			v = verdictBusy
		}
		if ok {
			to.whenClosed(remove)
		}
	case protoGRPC, protoRaft:
		// By what is trusted now: a handshake takes as long as its caller likes.
		m := s.cfg.Identity.now.Load()
		v, err = s.judge(to, raw.RemoteAddr().String(), m, cs.PeerCertificates)
		if v == verdictOK {
			v, other = s.judgeRun(to, is, raw, slices.Concat(to.chain[1:], m.roots), proof)
		}
	default:
		_ = raw.Close()
		return
	}
	g := greeting{Verdict: v, Clock: s.cfg.Now().UnixNano(), Cluster: s.cfg.ClusterID, Node: s.cfg.Self, Instance: s.cfg.Instance, Other: other, Proof: s.cfg.Proof()}
	s.cfg.Formats.tell(&g)
	if werr := writeGreeting(c, g); werr != nil || v != verdictOK {
		if v != verdictOK {
			if to.peer != "" {
				from = string(to.peer)
			}
			s.refusals.Note(from, "connection: "+string(v), err)
		}
		_ = c.Close() // with a farewell, within the deadline: the verdict has to arrive
		_ = to.Close()
		return
	}
	_ = raw.SetDeadline(time.Time{})
	to.presented, to.usage = cs.PeerCertificates, x509.ExtKeyUsageClientAuth
	if cs.NegotiatedProtocol != protoJoin {
		s.admitted.add(to, cs.NegotiatedProtocol)
		s.live.add(to)
		if err := s.stands(to); err != nil { // no more, and Prune has missed it
			s.refusals.Note(string(to.peer), "connection", err)
			_ = to.Close()
			return
		}
	}
	switch cs.NegotiatedProtocol {
	case protoJoin:
		s.toJoin.deliver(ctx, to)
	case protoGRPC:
		s.toGRPC.deliver(ctx, to)
	case protoRaft:
		s.raft.deliver(ctx, to)
	}
}

// judge says who a caller is, notes it in c, and whether it may come in.
func (s *Server) judge(c *peerConn, addr string, m *material, presented []*x509.Certificate) (verdict, error) {
	v := verifier{roots: m.roots, clusterID: s.cfg.ClusterID, lookup: s.cfg.Lookup}
	id, chain, err := v.identify(addr, presented, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return verdictWrongCluster, err
	}
	c.peer, c.chain = id, chain
	now := s.cfg.Now()
	if err := dates(addr, nameOf(chain[0]), chain, now, time.Time{}); err != nil {
		return verdictClock, err
	}
	if id == "" || !s.cfg.Member(id) {
		return verdictNotMember, cluster.ErrNotMember
	}
	c.endWith(chain, now)
	return verdictOK, nil
}

// judgeRun says whether a member's very run may come in. proof is what it shows
// for its incarnation, cas are those that may have signed it.
func (s *Server) judgeRun(to *peerConn, is Instance, raw net.Conn, cas []*x509.Certificate, proof string) (v verdict, other string) {
	ours, theirs := s.cfg.Instance.incarnation(), is.incarnation()
	switch {
	case theirs < ours:
		return verdictOlder, ""
	case theirs > ours:
		if s.cfg.Refused != nil {
			s.cfg.Refused(&IncarnationError{
				Addr: raw.RemoteAddr().String(), Node: to.peer, Ours: ours, Theirs: theirs,
				Proven: lifeProven(s.cfg.ClusterID, theirs, proof, cas),
			})
		}
		return verdictNewer, ""
	case s.cfg.Instances == nil:
		return verdictOK, ""
	}
	v, other, release := s.cfg.Instances.admit(to.peer, is, raw)
	if release != nil {
		to.whenClosed(release)
	}
	return v, other
}

// serverConfig notes the caller's instance in is and its proof in proof, and asks members for a certificate and joiners for none. The
// certificate itself is judged after the handshake, which has proved that the
// caller holds its key, so that the caller can be told why it is refused.
func serverConfig(m *material, is *Instance, proof *string) *tls.Config {
	conf := func(cert tls.Certificate, auth tls.ClientAuthType, protos ...string) *tls.Config {
		return &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: auth, NextProtos: protos,
			SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
		}
	}
	outer := conf(m.cert, tls.RequireAnyClientCert, protoGRPC, protoRaft)
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(hello.SupportedProtos) == 0 {
			return nil, errors.New("the caller does not say which protocol it wants")
		}
		*is, *proof = parseInstance(hello.SupportedProtos), parseProof(hello.SupportedProtos)
		if slices.Contains(hello.SupportedProtos, protoJoin) {
			return conf(m.full, tls.NoClientCert, protoJoin), nil
		}
		return nil, nil // the outer one
	}
	return outer
}
