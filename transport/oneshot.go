package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
)

// DialAs connects to an address as a member, for commands that run once: any
// member of the cluster may be there, and the answer says which. The
// connection is open when it returns; the caller closes it.
func DialAs(ctx context.Context, addr string, id *Identity, clusterID string, self Instance) (*grpc.ClientConn, cluster.NodeID, error) {
	return dialer{clusterID: clusterID, identity: id, timeout: defaultHandshake, self: self}.open(ctx, addr)
}

func (d dialer) open(ctx context.Context, addr string) (*grpc.ClientConn, cluster.NodeID, error) {
	dial := func(ctx context.Context) (*peerConn, error) {
		c, _, err := d.dial(ctx, addr, protoGRPC, "")
		return c, err
	}
	c, err := dial(ctx)
	if err != nil {
		return nil, "", err
	}
	peer := c.peer
	cc, err := clientOver(ctx, c, dial)
	return cc, peer, err
}

// DialJoin connects to a member of a cluster that one only has a token of: the
// CA that the member shows must have the token's fingerprint. Dates of
// certificates are not looked at, for the joiner's clock may be off; the
// answer to Join tells. The caller closes the connection.
func DialJoin(ctx context.Context, addr string, tok Token) (*grpc.ClientConn, error) {
	dial := func(ctx context.Context) (*peerConn, error) { return dialJoin(ctx, addr, tok) }
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	return clientOver(ctx, c, dial)
}

func dialJoin(ctx context.Context, addr string, tok Token) (*peerConn, error) {
	conf := clientConfig(protoJoin)
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != protoJoin {
			return &NotGatesyncError{Addr: addr, Err: errors.New("it speaks TLS, but not our protocol")}
		}
		return verifyFingerprint(addr, cs.PeerCertificates, tok.Fingerprint)
	}
	c, g, err := shake(ctx, defaultHandshake, addr, "", conf)
	if err != nil {
		return nil, err
	}
	if err := verdictError(addr, g); err != nil {
		_ = c.Close()
		return nil, err
	}
	return &peerConn{Conn: c}, nil
}

// verifyFingerprint checks that a presented certificate has the fingerprint
// and that the leaf is signed by it.
func verifyFingerprint(addr string, presented []*x509.Certificate, want string) error {
	refused := &FingerprintError{Addr: addr, Want: want}
	for _, c := range presented {
		refused.Have = append(refused.Have, fingerprint(c))
	}
	i := slices.Index(refused.Have, want)
	if i < 0 {
		return refused
	}
	// Showing the CA proves nothing; being signed by it does.
	if _, err := chainTo(presented, presented[i:i+1], x509.ExtKeyUsageServerAuth); err != nil {
		return refused
	}
	return nil
}
