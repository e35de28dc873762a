package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// protoPush is what a target's port speaks.
const protoPush = "gatesync-push/1"

// TargetServer is the TLS of a target's port: it shows its identity with the
// CA whose fingerprint stands in the target's token. Who calls shows the token's
// secret, inside.
func TargetServer(id *Identity) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protoPush},
		Certificates: []tls.Certificate{id.now.Load().full}, SessionTicketsDisabled: true,
	}
}

// TargetHandshake secures a connection to a target, whose CA must have the
// token's fingerprint. Dates of certificates are not looked at, for clocks may
// be off by years: who holds the key is told by the fingerprint alone.
func TargetHandshake(ctx context.Context, raw net.Conn, addr string, tok Token) (net.Conn, error) {
	conf := clientConfig(protoPush)
	conf.DynamicRecordSizingDisabled = false
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != protoPush {
			return &NotGatesyncError{Addr: addr, Err: errors.New("it speaks TLS, but takes no pushes")}
		}
		err := verifyFingerprint(addr, cs.PeerCertificates, tok.Fingerprint)
		if err == nil {
			return nil
		}
		return &WrongTargetError{Addr: addr, Want: tok.Fingerprint, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, defaultHandshake)
	defer cancel()
	c := tls.Client(raw, conf)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		if wrong := (*WrongTargetError)(nil); errors.As(err, &wrong) {
			return nil, wrong
		}
		return nil, handshakeError(addr, "", err)
	}
	return c, nil
}

// WrongTargetError: another target answers than the one whose token is shown.
type WrongTargetError struct {
	Addr, Want string // the fingerprint that the token names
	Err        error
}

func (e *WrongTargetError) Error() string {
	return fmt.Sprintf("%s is not the target whose token this is (the token's fingerprint is %.16s…): check the address, or give the token that `gatesync receive` prints there; nothing was sent", e.Addr, e.Want)
}

// Unwrap returns the cause.
func (e *WrongTargetError) Unwrap() error { return e.Err }

// DialTarget connects to a target's port.
func DialTarget(ctx context.Context, addr string, tok Token) (net.Conn, error) {
	dctx, cancel := context.WithTimeout(ctx, defaultHandshake)
	defer cancel()
	raw, err := connect(dctx, addr)
	if err != nil {
		return nil, &UnreachableError{Addr: addr, Err: plain(err)}
	}
	return TargetHandshake(ctx, raw, addr, tok)
}
