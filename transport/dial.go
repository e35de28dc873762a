package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

// The protocols of the port, as ALPN names them.
const (
	protoGRPC = "gatesync-grpc/1"
	protoRaft = "gatesync-raft/1"
	protoJoin = "gatesync-join/1"
)

// defaultHandshake bounds everything from the TCP connection to the verdict.
const defaultHandshake = 10 * time.Second

// dialer makes outgoing connections.
type dialer struct {
	clusterID string
	lookup    func(string) (cluster.NodeID, bool)
	identity  *Identity
	timeout   time.Duration
	formats   Formats
	self      Instance
	proof     string      // that our incarnation exists
	instances *Instances  // may be nil
	refused   func(error) // told what a member says of this very node; may be nil
}

// dial connects to an address and finds out who is there. With want, anybody
// else is refused. On success both ends have verified each other.
func (d dialer) dial(ctx context.Context, addr, proto string, want cluster.NodeID) (*peerConn, greeting, error) {
	m := d.identity.now.Load()
	v := verifier{roots: m.roots, clusterID: d.clusterID, lookup: d.lookup}
	var peer cluster.NodeID
	var chain []*x509.Certificate
	conf := clientConfig(proto)
	conf.NextProtos = introduction(proto, d.self, d.proof)
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &m.cert, nil }
	conf.VerifyConnection = func(cs tls.ConnectionState) (err error) {
		if cs.NegotiatedProtocol != proto {
			return &NotGatesyncError{Addr: addr, Err: errors.New("it speaks TLS, but not our protocol")}
		}
		peer, chain, err = v.identify(addr, cs.PeerCertificates, x509.ExtKeyUsageServerAuth)
		if err == nil && want != "" && peer != want {
			err = &PeerMismatchError{Addr: addr, Want: want, Have: peer}
		}
		return err
	}
	c, g, err := shake(ctx, d.timeout, addr, want, conf)
	if err != nil {
		return nil, g, err
	}
	if err := d.judge(addr, m, chain, g); err != nil {
		_ = c.Close()
		return nil, g, err
	}
	if peer == "" {
		peer = g.Node // own PKI, and nobody to ask what name this is: as good as its word
	}
	// The life first: what the log of another one is written in is nothing to us.
	err = d.sameLife(addr, peer, g, slices.Concat(chain[1:], m.roots))
	if err == nil {
		err = d.formats.judge(addr, g)
	}
	if err != nil {
		_ = c.Close()
		return nil, g, err
	}
	return &peerConn{Conn: c, peer: peer, presented: c.ConnectionState().PeerCertificates, usage: x509.ExtKeyUsageServerAuth, chain: chain}, g, nil
}

// judge combines our view of the other end with its view of us.
func (d dialer) judge(addr string, m *material, chain []*x509.Certificate, g greeting) error {
	now := time.Now()
	if err := dates(addr, nameOf(chain[0]), chain, now, g.clock()); err != nil {
		return err
	}
	switch g.Verdict {
	case verdictClock:
		// Ours, by its clock; by our own clock the same may hold.
		bad := m.leaf
		for _, c := range m.chain {
			if g.clock().Before(c.NotBefore) || g.clock().After(c.NotAfter) {
				bad = c
				break
			}
		}
		return &ClockError{Addr: addr, Whose: nameOf(bad) + ", this node,", NotBefore: bad.NotBefore, NotAfter: bad.NotAfter, Here: now, There: g.clock()}
	case verdictWrongCluster:
		return &WrongClusterError{Addr: addr, Ours: d.clusterID, Theirs: g.Cluster, Err: errors.New("it does not accept ours either")}
	case verdictNotMember:
		return &RemovedError{Addr: addr, Cluster: d.clusterID}
	}
	// An own PKI may serve several clusters: their certificates look alike.
	if g.Cluster != d.clusterID {
		return &WrongClusterError{Addr: addr, Ours: d.clusterID, Theirs: g.Cluster}
	}
	return nil
}

// sameLife makes sure that both ends belong to one incarnation of the cluster,
// and that each is the only run of its node. cas may sign for another one.
func (d dialer) sameLife(addr string, peer cluster.NodeID, g greeting, cas []*x509.Certificate) error {
	var err error
	ours, theirs := d.self.incarnation(), g.Instance.incarnation()
	switch {
	case g.Verdict == verdictTwin:
		err = &TwinError{Addr: addr, Node: peer, Other: g.Other, Alive: true}
	case g.Verdict == verdictPast:
		err = &TwinError{Addr: addr, Node: peer, Other: g.Other}
	case g.Verdict == verdictWentBack:
		err = &WentBackError{Addr: addr, Node: peer}
	case ours != theirs:
		err = &IncarnationError{Addr: addr, Node: peer, Ours: ours, Theirs: theirs, Proven: lifeProven(d.clusterID, theirs, g.Proof, cas)}
	case g.Verdict == verdictWait:
		return fmt.Errorf("%s finds out whether another daemon with this node's identity is alive: it answers in some seconds", addr)
	}
	if err != nil {
		if d.refused != nil {
			d.refused(err)
		}
		return err
	}
	if err := verdictError(addr, g); err != nil {
		return err
	}
	if d.instances == nil {
		return nil
	}
	if v, other := d.instances.met(peer, g.Instance, addr); v != verdictOK {
		return fmt.Errorf("%s at %s is not the %s that was last at %s (%s): one of the two data directories is a copy, or was put back from an older state", peer, addr, peer, other, v)
	}
	return nil
}

// verdictError is nil for OK.
func verdictError(addr string, g greeting) error {
	switch g.Verdict {
	case verdictOK:
		return nil
	case verdictBusy:
		return &BusyError{Addr: addr}
	}
	return fmt.Errorf("%s refused the connection (%.40q): is a newer version of gatesync running there?", addr, g.Verdict)
}

// clientConfig leaves the verification to VerifyConnection, which the caller
// sets: identities are ids in URIs, which no host name check knows.
func clientConfig(proto string) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{proto},
		InsecureSkipVerify:          true, //nolint:gosec // VerifyConnection does it
		DynamicRecordSizingDisabled: true,
	}
}

// shake connects, does the TLS handshake and reads the greeting, all within
// timeout. Errors of VerifyConnection come back as they are.
func shake(ctx context.Context, timeout time.Duration, addr string, node cluster.NodeID, conf *tls.Config) (*tls.Conn, greeting, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	raw, err := connect(ctx, addr)
	if err != nil {
		return nil, greeting{}, &UnreachableError{Addr: addr, Node: node, Err: plain(err)}
	}
	c := tls.Client(raw, conf)
	// Closing the socket is what ends a read when ctx does.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	g, err := greetedBy(ctx, c)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer to the handshake: %w", ctx.Err())
		}
		return nil, g, handshakeError(addr, node, err)
	}
	return c, g, nil
}

func greetedBy(ctx context.Context, c *tls.Conn) (greeting, error) {
	if err := c.HandshakeContext(ctx); err != nil {
		return greeting{}, err
	}
	return readGreeting(c)
}

// handshakeError tells a foreign port, a broken connection and our own
// refusals apart.
func handshakeError(addr string, node cluster.NodeID, err error) error {
	var (
		wrong       *WrongClusterError
		mismatch    *PeerMismatchError
		fingerprint *FingerprintError
		foreign     *NotGatesyncError
		op          *net.OpError
	)
	switch {
	case errors.As(err, &wrong), errors.As(err, &mismatch), errors.As(err, &fingerprint), errors.As(err, &foreign):
		return err
	case errors.As(err, &op) && op.Op != "remote error", // that one is a TLS alert
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &UnreachableError{Addr: addr, Node: node, Err: plain(err)}
	}
	return &NotGatesyncError{Addr: addr, Err: err}
}

// plain drops the address out of a network error: ours say it already.
func plain(err error) error {
	if proxy := (*ProxyError)(nil); errors.As(err, &proxy) {
		return err // says everything
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the connection was closed during the handshake: %w", err)
	}
	return err
}
