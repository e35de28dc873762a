package transport

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

// arrival is a connection whose handshake is done: what the caller wants and
// what it says of itself.
type arrival struct {
	*peerConn
	raw      net.Conn
	protocol string
	is       Instance
	proof    string
}

// admit does the handshake of one connection and hands it to whom it is for,
// all within the timeout.
func (s *Server) admit(raw net.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.HandshakeTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	_ = raw.SetDeadline(deadline)
	in, err := s.shake(ctx, raw)
	if err != nil {
		s.refusals.Note(hostOf(raw), "handshake", err)
		_ = raw.Close()
		return
	}
	v, other, err := s.weigh(in)
	if !s.greet(in, v, other, err) {
		return
	}
	_ = raw.SetDeadline(time.Time{})
	if in.protocol == protoJoin {
		s.toJoin.deliver(ctx, in.peerConn)
		return
	}
	s.admitted.add(in.peerConn, in.protocol)
	s.live.add(in.peerConn)
	if err := s.stands(in.peerConn); err != nil { // no more, and Prune has missed it
		s.refusals.Note(string(in.peer), "connection", err)
		_ = in.Close()
		return
	}
	if in.protocol == protoRaft {
		s.raft.deliver(ctx, in.peerConn)
	} else {
		s.toGRPC.deliver(ctx, in.peerConn)
	}
}

// shake does the handshake.
func (s *Server) shake(ctx context.Context, raw net.Conn) (*arrival, error) {
	in := &arrival{raw: raw}
	c := tls.Server(raw, serverConfig(s.cfg.Identity.now.Load(), &in.is, &in.proof))
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	cs := c.ConnectionState()
	switch in.protocol = cs.NegotiatedProtocol; in.protocol {
	case protoJoin, protoGRPC, protoRaft:
	default:
		return nil, errors.New("the caller wants no protocol of ours")
	}
	in.peerConn = &peerConn{Conn: c, presented: cs.PeerCertificates, usage: x509.ExtKeyUsageClientAuth}
	return in, nil
}

// weigh says whether a caller may come in. other is the run that speaks against
// it, err why not.
func (s *Server) weigh(in *arrival) (v verdict, other string, err error) {
	if in.protocol == protoJoin {
		remove, ok := s.joiners.addEvicting(in.peerConn)
		if !ok {
			return verdictBusy, "", nil
		}
		in.whenClosed(remove)
		return verdictOK, "", nil
	}
	// By what is trusted now: a handshake takes as long as its caller likes.
	m := s.cfg.Identity.now.Load()
	if v, err = s.judge(in.peerConn, in.raw.RemoteAddr().String(), m, in.presented); v != verdictOK {
		return v, "", err
	}
	v, other = s.judgeRun(in.peerConn, in.is, in.raw, slices.Concat(in.chain[1:], m.roots), in.proof)
	return v, other, nil
}

// greet tells the caller the verdict, and whether it goes on from here.
func (s *Server) greet(in *arrival, v verdict, other string, why error) bool {
	g := greeting{Verdict: v, Clock: s.cfg.Now().UnixNano(), Cluster: s.cfg.ClusterID, Node: s.cfg.Self, Instance: s.cfg.Instance, Other: other, Proof: s.cfg.Proof()}
	s.cfg.Formats.tell(&g)
	err := writeGreeting(in.Conn, g)
	if err == nil && v == verdictOK {
		return true
	}
	if v != verdictOK {
		s.refusals.Note(cmp.Or(string(in.peer), hostOf(in.raw)), "connection: "+string(v), why)
	}
	_ = in.Conn.Close() // with a farewell, within the deadline: the verdict has to arrive
	_ = in.Close()
	return false
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

// serverConfig notes the caller's instance in is and its proof in proof, and asks
// members for a certificate and joiners for none. The certificate itself is
// judged after the handshake, which has proved that the caller holds its key, so
// that the caller can be told why it is refused.
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
