package transport

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
)

const (
	// maxMessage bounds what one answer may hold.
	maxMessage = 4 << 20
	// maxRequest bounds what a member may send in one message: twice what the
	// largest ones (a message of pieces and an offer) hold. Every stream may have
	// one that is half read.
	maxRequest = 640 << 10
	// maxJoinRequest is the same for those whom nobody knows.
	maxJoinRequest = 64 << 10
	// maxHeader bounds a call's headers, as they are unpacked.
	maxHeader = 16 << 10
	// Fixed windows: a stream that its reader neglects costs no more than this.
	streamWindow = 1 << 20
	connWindow   = 4 << 20
	maxStreams   = 256 // per connection

	keepaliveEvery   = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	connectTimeout   = 5 * time.Second
)

// caller is what gRPC keeps about a connection whose handshake is done.
type caller struct {
	credentials.CommonAuthInfo
	id   cluster.NodeID
	conn *peerConn
}

func (caller) AuthType() string { return "gatesync" }

// Peer says which member a handler of Server.GRPC is called by.
func Peer(ctx context.Context) (cluster.NodeID, bool) {
	c := callerOf(ctx)
	return c.id, c.id != ""
}

func callerOf(ctx context.Context) (c caller) {
	if p, ok := peer.FromContext(ctx); ok {
		c, _ = p.AuthInfo.(caller)
	}
	return c
}

func (c caller) host() string {
	if c.conn == nil {
		return ""
	}
	return hostOf(c.conn)
}

// isJoining tells whether a joiner waits for its answer.
func isJoining(c net.Conn) bool {
	p, ok := c.(*peerConn)
	return ok && p.busy.Load() > 0
}

// finished are gRPC's credentials for connections that come to it as
// *peerConn: secured and identified. There is nothing left to do.
type finished struct{}

func (finished) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return finished{}.ServerHandshake(c)
}

func (finished) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	pc, ok := c.(*peerConn)
	if !ok {
		return nil, nil, errors.New("transport: a connection without an identity")
	}
	return pc, caller{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, id: pc.peer, conn: pc}, nil
}

func (finished) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (finished) Clone() credentials.TransportCredentials { return finished{} }
func (finished) OverrideServerName(string) error         { return nil }

// serverOptions are those of both gRPC servers. No compression is among them:
// gRPC knows only the compressors that a program links, and this one links none.
func serverOptions() []grpc.ServerOption {
	return append(StatusServerOptions(),
		grpc.Creds(finished{}),
		grpc.WaitForHandlers(true), // Close waits for what it stops
		grpc.MaxSendMsgSize(maxMessage), grpc.MaxHeaderListSize(maxHeader),
		grpc.ConnectionTimeout(defaultHandshake), // of HTTP/2's own
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveEvery / 2, PermitWithoutStream: true}),
	)
}

// newMemberServer is the server for members.
func newMemberServer(member func(cluster.NodeID) bool, refusals *Refusals) *grpc.Server {
	check := func(ctx context.Context) error {
		id, ok := Peer(ctx)
		if !ok || !member(id) {
			return ToStatus(cluster.ErrNotMember)
		}
		return nil
	}
	return grpc.NewServer(append(serverOptions(),
		grpc.MaxConcurrentStreams(maxStreams), grpc.MaxRecvMsgSize(maxRequest),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connWindow),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveEvery, Timeout: keepaliveTimeout}),
		grpc.StatsHandler(watchCalls{refusals}),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := check(ctx); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := check(ss.Context()); err != nil {
				return err
			}
			return next(srv, memberStream{ss, check})
		}),
	)...)
}

// memberStream checks the membership with each message: streams live long.
type memberStream struct {
	grpc.ServerStream
	check func(context.Context) error
}

func (s memberStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.check(s.Context())
}

// newJoinServer is the server for callers that nobody knows yet: few of them,
// slowly, and not for long.
func newJoinServer() *grpc.Server {
	limit := newHostLimit()
	return grpc.NewServer(append(serverOptions(),
		grpc.MaxConcurrentStreams(8), grpc.MaxRecvMsgSize(maxJoinRequest),
		grpc.InitialWindowSize(maxJoinRequest), grpc.InitialConnWindowSize(maxJoinRequest),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: 30 * time.Second, MaxConnectionAge: time.Minute, MaxConnectionAgeGrace: 30 * time.Second,
			Time: keepaliveEvery, Timeout: keepaliveTimeout,
		}),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			c := callerOf(ctx)
			if !limit.allow(c.host(), time.Now()) {
				return nil, status.Error(codes.ResourceExhausted, "too many join attempts at once: try again in a few seconds")
			}
			if c.conn != nil { // who has asked in full is not pushed out before the answer
				c.conn.busy.Add(1)
				defer c.conn.busy.Add(-1)
			}
			return next(ctx, req)
		}),
	)...)
}

// newClient makes a gRPC connection over dial, which returns connections that
// are identified already. translate makes errors of it; see translateWith.
func newClient(dial func(context.Context) (*peerConn, error), translate func(error) error) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///gatesync", append(translateWith(translate),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := dial(ctx)
			if err != nil {
				return nil, err // not a nil *peerConn inside a net.Conn
			}
			return c, nil
		}),
		grpc.WithTransportCredentials(finished{}),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveEvery, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: connectTimeout,
		}),
	)...)
}

// firstThenDial is a dial function for a connection that is open already: it
// comes first, and is dialed again if it breaks.
type firstThenDial struct {
	mu    sync.Mutex
	first *peerConn
	again func(context.Context) (*peerConn, error)
}

func (f *firstThenDial) dial(ctx context.Context) (*peerConn, error) {
	if c := f.take(); c != nil {
		return c, nil
	}
	return f.again(ctx)
}

func (f *firstThenDial) take() *peerConn {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.first
	f.first = nil
	return c
}

// clientOver makes a gRPC connection of an open connection and waits until it
// is ready.
func clientOver(ctx context.Context, c *peerConn, again func(context.Context) (*peerConn, error)) (*grpc.ClientConn, error) {
	f := &firstThenDial{first: c, again: again}
	cc, err := newClient(f.dial, FromStatus)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	cc.Connect()
	for s := cc.GetState(); s != connectivity.Ready; s = cc.GetState() {
		if s == connectivity.TransientFailure || !cc.WaitForStateChange(ctx, s) {
			_ = cc.Close()
			if c := f.take(); c != nil {
				_ = c.Close()
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return nil, errors.New("the connection broke right after it was made: try again")
		}
	}
	return cc, nil
}

// jitter spreads retries of many nodes apart.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
