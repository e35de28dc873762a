package raftstore

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// A new CA replaces the cluster's in three commands. PutAuthority makes it
// trusted too; UseAuthority makes it the one that signs, and the old one the
// one that is trusted too; DropAuthority ends the trust in the old one. Each
// may be repeated. When the next one is due is the leader's to judge; the
// state says how far the replacement has come, so that any leader goes on.

// Authority is a CA.
type Authority struct {
	Cert []byte // PEM
	// Cross is the same CA signed by the one before it, for those who only
	// know that one; may be empty.
	Cross []byte
	// Fingerprint is the SHA-256 of its certificate in hex.
	Fingerprint string
}

// Authorities are the CAs of a cluster.
type Authorities struct {
	Signing Authority
	Key     []byte     // of Signing; empty with an own PKI
	Also    *Authority // is trusted too; nil while no CA is being replaced
	// Incoming: Also is the new CA, which does not sign yet; else it is the
	// old one, which does not sign any more.
	Incoming bool
}

// Authorities returns the cluster's CAs.
func (m *Machine) Authorities() Authorities {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.authorities()
}

func (s *state) authorities() Authorities {
	c := s.identity
	a := Authorities{
		Signing: Authority{Cert: c.GetCaCertPem(), Cross: c.GetCaCrossPem(), Fingerprint: fingerprint(c.GetCaCertPem())},
		Key:     c.GetCaKeyPem(),
	}
	if also := s.also; also != nil {
		a.Also = &Authority{Cert: also.GetCertPem(), Cross: also.GetCrossPem(), Fingerprint: fingerprint(also.GetCertPem())}
		a.Incoming = len(also.GetKeyPem()) > 0
	}
	return a
}

// fingerprint is "" where there is no certificate.
func fingerprint(certPEM []byte) string {
	b, _ := pem.Decode(certPEM)
	if b == nil || b.Type != "CERTIFICATE" {
		return ""
	}
	sum := sha256.Sum256(b.Bytes)
	return hex.EncodeToString(sum[:])
}

func (s *state) putAuthority(p *pb.PutAuthority) *pb.Outcome {
	a := p.GetAuthority()
	print := fingerprint(a.GetCertPem())
	switch now := s.authorities(); {
	case print == "" || len(a.GetKeyPem()) == 0:
		return refuse(CodeMalformed, "a CA needs a certificate and a key")
	case len(now.Key) == 0:
		return refuse(CodeAuthority, "this cluster uses certificates of its operator's own PKI: put both CAs into the CA file of every node, then replace the certificates, then take the old CA out")
	case now.Also != nil && now.Also.Fingerprint == print, now.Signing.Fingerprint == print:
		return done()
	case now.Also != nil:
		return refuse(CodeAuthority, "the CA is being replaced already; `gatesync status` shows how far that has come")
	}
	s.also = a
	return done()
}

func (s *state) useAuthority(u *pb.UseAuthority) *pb.Outcome {
	now := s.authorities()
	if u.GetFingerprint() != "" && now.Signing.Fingerprint == u.GetFingerprint() {
		return done()
	}
	if now.Also == nil || !now.Incoming || now.Also.Fingerprint != u.GetFingerprint() {
		return refuse(CodeAuthority, "no such CA waits to become the one that signs")
	}
	old := s.identity.GetCaCertPem()
	s.identity = &pb.InitCluster{
		ClusterId: s.identity.GetClusterId(), CaCertPem: s.also.GetCertPem(), CaKeyPem: s.also.GetKeyPem(), CaCrossPem: s.also.GetCrossPem(),
	}
	s.also = &pb.Authority{CertPem: old} // its key has nothing to sign any more
	return done()
}

// dropAuthority drops whichever CA does not sign: the old one at the end, or
// the new one to give up its coming.
func (s *state) dropAuthority(d *pb.DropAuthority) *pb.Outcome {
	switch now := s.authorities(); {
	case d.GetFingerprint() == "":
		return refuse(CodeMalformed, "no CA")
	case now.Signing.Fingerprint == d.GetFingerprint():
		return refuse(CodeAuthority, "the CA that signs cannot be dropped")
	case now.Also == nil || now.Also.Fingerprint != d.GetFingerprint():
		return done()
	case !now.Incoming:
		s.identity = &pb.InitCluster{ClusterId: s.identity.GetClusterId(), CaCertPem: s.identity.GetCaCertPem(), CaKeyPem: s.identity.GetCaKeyPem()}
	}
	s.also = nil
	return done()
}
