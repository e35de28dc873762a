package node

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// A whole cluster comes back after so long a time that every certificate has
// expired: nobody could let anybody in.
func TestPromise_Available_ExpiredCertificatesOfAllNodes(t *testing.T) {
	t.Parallel()
	g := trio(t)
	g[0].write("long-ago.xml", "before the winter")
	everywhere(t, "long-ago.xml", "before the winter", g[1], g[2])
	for _, n := range g {
		n.cfg.Listen = n.address() // who finds nobody learns no new address
	}
	for _, n := range g {
		n.stop()
		n.expire()
	}
	g[1].write("long-ago.xml", "edited while it was off")
	for _, n := range g {
		n.run()
	}
	everywhere(t, "long-ago.xml", "edited while it was off", g[0], g[2])
	for _, n := range g {
		eventually(t, func() error { // one of a later retry may be on its way
			s, err := n.status()
			if err == nil && s.Node.CertificateExpires.Before(time.Now()) {
				err = fmt.Errorf("%s: certificate until %s", n.cfg.Name, s.Node.CertificateExpires)
			}
			return err
		})
	}
}

// expire gives a node that is off a certificate of two years ago.
func (g *gateway) expire() {
	g.t.Helper()
	p, err := raftstore.Peek(filepath.Join(g.cfg.DataDir, "raft"))
	if err != nil {
		g.t.Fatal(err)
	}
	id, err := transport.LoadIdentity(identityFiles(g.cfg))
	if err != nil {
		g.t.Fatal(err)
	}
	clusterID, node, _ := id.Subject()
	csr, err := id.CSR()
	if err != nil {
		g.t.Fatal(err)
	}
	// The CA is younger than that: of dates, only the certificate's end counts here.
	ca := transport.CA{ClusterID: clusterID, Cert: p.Authorities.Signing.Cert, Key: p.Authorities.Key, Life: time.Hour}
	cert, err := ca.Sign(csr, node, g.cfg.Name, time.Now().Add(-2*time.Hour))
	if err != nil {
		g.t.Fatal(err)
	}
	if err := transport.WriteRenewed(identityFiles(g.cfg), nil, cert); err != nil {
		g.t.Fatal(err)
	}
}
