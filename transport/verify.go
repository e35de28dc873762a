package transport

import (
	"crypto/x509"
	"errors"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

// verifier decides who a certificate belongs to. The same one is used for
// callers and for callees.
type verifier struct {
	roots     []*x509.Certificate
	clusterID string
	lookup    func(name string) (cluster.NodeID, bool) // own PKI; may be nil
}

// identify checks that a presented chain is of our cluster and says whose it
// is; the id is "" where the certificate is of our CA but names nobody we know
// (own PKI). It leaves the dates aside (see dates): a certificate of the right
// cluster with a wrong date deserves another answer than a stranger's.
func (v verifier) identify(addr string, presented []*x509.Certificate, usage x509.ExtKeyUsage) (cluster.NodeID, []*x509.Certificate, error) {
	if len(presented) == 0 {
		return "", nil, &WrongClusterError{Addr: addr, Ours: v.clusterID, Err: errors.New("no certificate")}
	}
	theirs, id, ours := subject(presented[0])
	chain, err := chainTo(presented, v.roots, usage)
	if err != nil {
		return "", nil, &WrongClusterError{Addr: addr, Ours: v.clusterID, Theirs: theirs, Err: err}
	}
	if ours {
		if theirs != v.clusterID {
			return "", nil, &WrongClusterError{Addr: addr, Ours: v.clusterID, Theirs: theirs}
		}
		return id, chain, nil
	}
	if v.lookup != nil {
		if id, ok := v.lookup(presented[0].Subject.CommonName); ok {
			return id, chain, nil
		}
	}
	return "", chain, nil
}

// chainTo verifies a chain up to one of the roots at a moment at which all of
// its certificates are valid, whatever the clock says.
func chainTo(presented, roots []*x509.Certificate, usage x509.ExtKeyUsage) ([]*x509.Certificate, error) {
	between := x509.NewCertPool()
	at := presented[0].NotBefore
	for _, c := range presented[1:] {
		between.AddCert(c)
		at = later(at, c.NotBefore)
	}
	err := errors.New("no CA to verify it with")
	for _, root := range roots {
		pool := x509.NewCertPool()
		pool.AddCert(root)
		var chains [][]*x509.Certificate
		chains, err = presented[0].Verify(x509.VerifyOptions{
			Roots: pool, Intermediates: between, CurrentTime: later(at, root.NotBefore),
			KeyUsages: []x509.ExtKeyUsage{usage},
		})
		if err == nil {
			return chains[0], nil
		}
	}
	return nil, err
}

// dates checks every certificate of a chain against the clock.
func dates(addr, whose string, chain []*x509.Certificate, here, there time.Time) error {
	for _, c := range chain {
		if here.Before(c.NotBefore) || here.After(c.NotAfter) {
			return &ClockError{Addr: addr, Whose: whose, NotBefore: c.NotBefore, NotAfter: c.NotAfter, Here: here, There: there}
		}
	}
	return nil
}

// nameOf is how people know a certificate's owner.
func nameOf(c *x509.Certificate) string {
	if _, id, ok := subject(c); ok {
		return c.Subject.CommonName + " (" + string(id) + ")"
	}
	return c.Subject.CommonName
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
