package transport

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/vfs"
)

// Files are the three files of an identity. The CA file may hold several CAs,
// as while one replaces another; the certificate file may hold intermediates.
type Files struct{ CA, Cert, Key string }

// FilesIn names the files in a directory as gatesync itself writes them.
func FilesIn(dir string) Files {
	return Files{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "node.pem"), Key: filepath.Join(dir, "node.key")}
}

// Identity is who this node is: its certificate, its key, and the CAs that it
// trusts. It may be read anew while connections use it; those that are open
// keep what they were opened with.
type Identity struct {
	files  Files
	reload sync.Mutex // one Reload at a time
	now    atomic.Pointer[material]
}

// material is what was in the files; immutable.
type material struct {
	caPEM  []byte
	roots  []*x509.Certificate
	cert   tls.Certificate
	leaf   *x509.Certificate
	chain  []*x509.Certificate // leaf … root
	issuer string              // fingerprint of that root
	full   tls.Certificate     // with the root: a joiner knows nothing but its fingerprint
}

// LoadIdentity reads the files. Dates are not looked at: a node whose
// certificate has expired still has to start, to say so.
func LoadIdentity(f Files) (*Identity, error) {
	i := &Identity{files: f}
	if err := i.Reload(); err != nil {
		return nil, err
	}
	return i, nil
}

// Reload reads the files again. On an error the identity stays what it was.
func (i *Identity) Reload() error {
	i.reload.Lock()
	defer i.reload.Unlock()
	m, err := readMaterial(i.files)
	if err != nil {
		return err
	}
	i.now.Store(m)
	return nil
}

func readMaterial(f Files) (*material, error) {
	caPEM, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	certPEM, err := os.ReadFile(f.Cert)
	if err != nil {
		return nil, fmt.Errorf("read this node's certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(f.Key)
	if err != nil {
		return nil, fmt.Errorf("read this node's key: %w", err)
	}
	return fitting(f, caPEM, certPEM, keyPEM)
}

// fitting makes an identity of what is, or is to be, in the files; an error
// where they do not belong together.
func fitting(f Files, caPEM, certPEM, keyPEM []byte) (*material, error) {
	roots, err := parseCerts(caPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.CA, err)
	}
	for _, root := range roots {
		// Its own signature says nothing about whom to trust, but that nothing
		// in it has changed.
		foreign := !bytes.Equal(root.RawIssuer, root.RawSubject) && len(root.AuthorityKeyId) > 0 && !bytes.Equal(root.AuthorityKeyId, root.SubjectKeyId)
		if !foreign && root.CheckSignatureFrom(root) != nil {
			return nil, fmt.Errorf("%s: the CA %q does not bear its own signature: the file is damaged", f.CA, root.Subject.CommonName)
		}
	}
	presented, err := parseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Cert, err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s and %s do not belong together: %w", f.Cert, f.Key, err)
	}
	// A certificate that peers would refuse is better found here.
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := chainTo(presented, roots, usage); err != nil {
			return nil, fmt.Errorf("%s is not signed by a CA in %s for both ends of a connection (serverAuth, clientAuth): %w", f.Cert, f.CA, err)
		}
	}
	m := &material{caPEM: caPEM, roots: roots, cert: cert, leaf: presented[0], full: cert}
	m.full.Certificate = slices.Clone(cert.Certificate)
	for _, root := range roots {
		chain, err := chainTo(presented, []*x509.Certificate{root}, x509.ExtKeyUsageServerAuth)
		if err != nil {
			continue
		}
		// While one CA replaces another there are two ways up. Joiners are shown
		// both; the CA that has signed the certificate is the nearer one.
		if m.chain == nil || len(chain) < len(m.chain) {
			m.chain = chain
		}
		m.full.Certificate = append(m.full.Certificate, root.Raw)
	}
	m.issuer = fingerprint(m.chain[len(m.chain)-1])
	return m, nil
}

// CAPEM returns the CA file's content.
func (i *Identity) CAPEM() []byte { return i.now.Load().caPEM }

// IssuerPEM returns the CA that this node's certificate leads to; NewToken
// takes it, so that a token fits what the node shows to a joiner.
func (i *Identity) IssuerPEM() []byte {
	chain := i.now.Load().chain
	return encodeCert(chain[len(chain)-1].Raw)
}

// Trusts tells whether the CA file holds the certificate with a fingerprint:
// a joiner with an own PKI asks it of its token's.
func (i *Identity) Trusts(fp string) bool {
	return slices.Contains(i.Trusted(), fp)
}

// Trusted lists the fingerprints of the CAs in the CA file.
func (i *Identity) Trusted() []string {
	var prints []string
	for _, c := range i.now.Load().roots {
		prints = append(prints, fingerprint(c))
	}
	return prints
}

// Issuer returns the fingerprint of the CA that this node's certificate leads
// to, and until when that CA is valid.
func (i *Identity) Issuer() (print string, ends time.Time) {
	m := i.now.Load()
	return m.issuer, m.chain[len(m.chain)-1].NotAfter
}

// Validity says from when to when this node's certificate is valid.
func (i *Identity) Validity() (notBefore, notAfter time.Time) {
	leaf := i.now.Load().leaf
	return leaf.NotBefore, leaf.NotAfter
}

// Subject returns what the certificate says about this node: its cluster and
// id, or with an own PKI only its name.
func (i *Identity) Subject() (clusterID string, id cluster.NodeID, name string) {
	leaf := i.now.Load().leaf
	clusterID, id, _ = subject(leaf)
	return clusterID, id, leaf.Subject.CommonName
}

// CSR returns a signing request for the key in use: a renewal keeps the key,
// so that only the certificate's file is replaced.
func (i *Identity) CSR() (csrDER []byte, err error) {
	key, ok := i.now.Load().cert.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("this node's key cannot sign")
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a signing request: %w", err)
	}
	return csr, nil
}

// WriteIdentity writes the files of a new identity, durably; the key first and
// the certificate last, so that an interrupted call leaves no certificate.
func WriteIdentity(f Files, caPEM, certPEM, keyPEM []byte) error {
	for _, w := range []struct {
		path string
		data []byte
		mode os.FileMode
	}{{f.Key, keyPEM, 0o600}, {f.CA, caPEM, 0o644}, {f.Cert, certPEM, 0o644}} {
		if err := writeFile(w.path, w.data, w.mode); err != nil {
			return err
		}
	}
	return nil
}

// WriteRenewed replaces the CA file and the certificate, each where one is
// given, durably. Reload uses them. Nothing is written that would not be loaded.
func WriteRenewed(f Files, caPEM, certPEM []byte) error {
	if err := fits(f, caPEM, certPEM); err != nil {
		return fmt.Errorf("the new certificate or CA is not taken: %w", err)
	}
	if len(caPEM) > 0 {
		// First: a new certificate needs its CA, the old one keeps it.
		if err := writeFile(f.CA, caPEM, 0o644); err != nil {
			return err
		}
	}
	if len(certPEM) == 0 {
		return nil
	}
	return writeFile(f.Cert, certPEM, 0o644)
}

// fits checks new content of the files, "" for what stays.
func fits(f Files, caPEM, certPEM []byte) (err error) {
	if len(caPEM) == 0 {
		if caPEM, err = os.ReadFile(f.CA); err != nil {
			return err
		}
	}
	if len(certPEM) == 0 {
		if certPEM, err = os.ReadFile(f.Cert); err != nil {
			return err
		}
	}
	keyPEM, err := os.ReadFile(f.Key)
	if err != nil {
		return err
	}
	_, err = fitting(f, caPEM, certPEM, keyPEM)
	return err
}

// Bundle puts certificates into one CA file, each once, in their order.
func Bundle(pems ...[]byte) ([]byte, error) {
	var out []byte
	seen := map[string]bool{}
	for _, p := range pems {
		if len(p) == 0 {
			continue
		}
		certs, err := parseCerts(p)
		if err != nil {
			return nil, fmt.Errorf("a CA: %w", err)
		}
		for _, c := range certs {
			if print := fingerprint(c); !seen[print] {
				seen[print] = true
				out = append(out, encodeCert(c.Raw)...)
			}
		}
	}
	return out, nil
}

// writeFile replaces a file, in a directory that it makes.
func writeFile(path string, data []byte, mode os.FileMode) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return vfs.ReplaceFile(path, data, mode)
}
