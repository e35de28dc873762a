package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An operator may bring certificates of an own PKI: the common name is the
// node's name, and a certificate of another PKI opens nothing.
func TestPromise_OwnTree_OwnCertificates(t *testing.T) {
	t.Parallel()
	c := emptyCluster(t)
	ours, theirs := newPKI(t, c.dir, "ours"), newPKI(t, c.dir, "theirs")
	first := c.add()
	first.must("init", append(c.joinFlags(first), ours.issue(first.name)...)...)
	first.start()
	second := c.join(ours.issue("gw2")...)
	second.waits() // until it has looked around: what stood there before is held
	write(t, second.tree, "from-gw2.xml", "under certificates of one's own\n")
	eventually(t, 30*time.Second, "gw1 has what gw2 wrote", func() error {
		return stands(first.tree, "from-gw2.xml", "under certificates of one's own\n")
	})

	stranger := c.add()
	token := first.token()
	args := append([]string{first.addr, "--token", token}, c.joinFlags(stranger)...)
	if a := stranger.ask("join", append(args, theirs.issue(stranger.name)...)...); a.code == 0 {
		t.Errorf("a node with a certificate of another PKI joined: %s", a.stdout)
	} else {
		t.Logf("refused: %s", a.stderr)
	}
}

// pki is a certificate authority of an operator's own.
type pki struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newPKI(t *testing.T, dir, name string) *pki {
	t.Helper()
	p := &pki{t: t, dir: filepath.Join(dir, "pki-"+name), key: newKey(t)}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name + " CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	p.sign("ca", p.cert, p.key)
	return p
}

// issue makes a node's certificate and returns the flags that name the files.
func (p *pki) issue(name string) []string {
	p.t.Helper()
	p.sign(name, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, newKey(p.t))
	return []string{"--tls-ca", p.file("ca.pem"), "--tls-cert", p.file(name + ".pem"), "--tls-key", p.file(name + ".key")}
}

func (p *pki) file(name string) string { return filepath.Join(p.dir, name) }

func (p *pki) sign(name string, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	p.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, p.cert, key.Public(), p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der},
		name + ".key": {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(p.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
