package transport

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	nodeLife = 365 * 24 * time.Hour
	// Certificates begin a little in the past: the clocks of a cluster differ.
	caBackdate   = 24 * time.Hour
	nodeBackdate = time.Hour

	uriScheme = "gatesync"
)

// NewCA makes a cluster's certificate authority: an ECDSA P-256 key and a
// certificate that is valid for 10 years.
func NewCA(clusterID string) (certPEM, keyPEM []byte, err error) {
	return newCA(clusterID, time.Now())
}

func newCA(clusterID string, now time.Time) (certPEM, keyPEM []byte, err error) {
	keyPEM, err = NewKey()
	if err != nil {
		return nil, nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "gatesync CA of " + clusterID},
		NotBefore:             now.Add(-caBackdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1, // the CA that replaces it, see CrossSign
		URIs:                  []*url.URL{{Scheme: uriScheme, Host: clusterID}},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the CA's certificate: %w", err)
	}
	return encodeCert(der), keyPEM, nil
}

// NewKey makes a node's private key (ECDSA P-256) as PEM. It stays on the node.
func NewKey() (keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// NewCSR makes the signing request for a key. Nothing in it but the public key
// is believed by Sign.
func NewCSR(keyPEM []byte) (csrDER []byte, err error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a signing request: %w", err)
	}
	return csr, nil
}

// IDOfKey is the id of a joiner: the beginning of its public key's digest. Who
// asks again for a certificate of an id so shows that it has the same key.
func IDOfKey(csrDER []byte) (cluster.NodeID, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return "", fmt.Errorf("read the signing request: %w", err)
	}
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	return cluster.NodeID("n-" + hex.EncodeToString(sum[:8])), nil
}

// CA signs the certificates of a cluster's nodes.
type CA struct {
	ClusterID string
	Cert, Key []byte        // PEM
	Cross     []byte        // the CA signed by the one that it replaces (CrossSign); may be empty
	Life      time.Duration // of the certificates; 0: a year
}

// Issue makes a key and a certificate for it, where both are made on one machine.
func (c CA) Issue(id cluster.NodeID, name string, now time.Time) (certPEM, keyPEM []byte, err error) {
	if keyPEM, err = NewKey(); err != nil {
		return nil, nil, err
	}
	csr, err := NewCSR(keyPEM)
	if err != nil {
		return nil, nil, err
	}
	certPEM, err = c.Sign(csr, id, name, now)
	return certPEM, keyPEM, err
}

// Sign makes a node's certificate, for as long as the CA signs and is itself
// valid, for both ends of a connection, with the node's identity as its URI.
// The cross certificate comes behind it.
func (c CA) Sign(csrDER []byte, id cluster.NodeID, name string, now time.Time) (certPEM []byte, err error) {
	ca, err := firstCert(c.Cert)
	if err != nil {
		return nil, fmt.Errorf("the CA's certificate: %w", err)
	}
	key, err := parseKey(c.Key)
	if err != nil {
		return nil, fmt.Errorf("the CA's key: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("read the signing request: %w", err)
	}
	// The signature proves that the requester holds the key.
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the signing request is not signed by its own key: %w", err)
	}
	if pub, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
		return nil, errors.New("the signing request has a key that is not ECDSA P-256")
	}
	if c.ClusterID == "" || id == "" {
		return nil, errors.New("a certificate needs a cluster and a node id")
	}
	if now.Before(ca.NotBefore) || now.After(ca.NotAfter) {
		// Its certificate would be valid at no time.
		return nil, fmt.Errorf("the CA is valid from %s to %s, and the clock here says %s: set the clock right (NTP), or replace the CA (gatesync rotate-ca) before it ends",
			ca.NotBefore.UTC().Format(time.RFC3339), ca.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	life := cmp.Or(c.Life, nodeLife)
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-min(nodeBackdate, life)),
		NotAfter:              earlier(now.Add(life), ca.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{nodeURI(c.ClusterID, id)},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca, csr.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", id, err)
	}
	return append(encodeCert(der), c.Cross...), nil
}

// CrossSign lets a CA vouch for the one that replaces it: whoever trusts only
// the old one can verify certificates of the new one with it. It returns
// nothing where the old one may not sign another CA.
func (c CA) CrossSign(newPEM []byte, now time.Time) (crossPEM []byte, err error) {
	old, err := firstCert(c.Cert)
	if err != nil {
		return nil, fmt.Errorf("the old CA's certificate: %w", err)
	}
	key, err := parseKey(c.Key)
	if err != nil {
		return nil, fmt.Errorf("the old CA's key: %w", err)
	}
	fresh, err := firstCert(newPEM)
	if err != nil {
		return nil, fmt.Errorf("the new CA's certificate: %w", err)
	}
	if old.MaxPathLen == 0 {
		return nil, nil
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               fresh.Subject,
		NotBefore:             now.Add(-nodeBackdate),
		NotAfter:              earlier(fresh.NotAfter, old.NotAfter),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          fresh.SubjectKeyId,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, old, fresh.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("cross-sign the new CA: %w", err)
	}
	return encodeCert(der), nil
}

// Fingerprint is the SHA-256 of a CA certificate in hex, as other tools print
// it too. A join token carries it.
func Fingerprint(caPEM []byte) (string, error) {
	ca, err := firstCert(caPEM)
	if err != nil {
		return "", fmt.Errorf("the CA's certificate: %w", err)
	}
	return fingerprint(ca), nil
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func nodeURI(clusterID string, id cluster.NodeID) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: clusterID, Path: "/node/" + string(id)}
}

// subject reads the identity out of a certificate; ok is false where it has
// none of ours (own PKI).
func subject(c *x509.Certificate) (clusterID string, id cluster.NodeID, ok bool) {
	for _, u := range c.URIs {
		if u.Scheme != uriScheme {
			continue
		}
		if id, found := strings.CutPrefix(u.Path, "/node/"); found && id != "" && u.Host != "" {
			return u.Host, cluster.NodeID(id), true
		}
	}
	return "", "", false
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// parseKey reads an ECDSA key, in PKCS #8 or SEC 1.
func parseKey(keyPEM []byte) (*ecdsa.PrivateKey, error) {
	b, _ := pem.Decode(keyPEM)
	if b == nil {
		return nil, errors.New("no key in PEM form")
	}
	if key, err := x509.ParseECPrivateKey(b.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is a %T, not ECDSA", key)
	}
	return ec, nil
}

func firstCert(certPEM []byte) (*x509.Certificate, error) {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// parseCerts reads one certificate or more.
func parseCerts(certPEM []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var b *pem.Block
		if b, certPEM = pem.Decode(certPEM); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read a certificate: %w", err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in PEM form")
	}
	return certs, nil
}
