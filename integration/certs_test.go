package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatesync/gatesync/transport"
)

// certs is what status says about certificates.
type certs struct {
	Cluster string
	Node    struct {
		CertificateExpires time.Time `json:"certificate_expires"`
	}
	CA struct {
		Fingerprint string
		Replacing   *struct{ Step string }
	}
}

func (n *node) certs() (c certs) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.must("status", "--json")), &c); err != nil {
		n.t.Fatal(err)
	}
	return c
}

// pids are the processes that must still run at the end.
func (c *cluster) pids() (pids []int) {
	for _, n := range c.nodes {
		pids = append(pids, n.daemon.Process.Pid)
	}
	return pids
}

// identityOf copies a node's certificate as it is now.
func identityOf(t *testing.T, n *node) transport.Files {
	t.Helper()
	to := transport.FilesIn(t.TempDir())
	from := transport.FilesIn(filepath.Join(n.data, "tls"))
	for src, dst := range map[string]string{from.CA: to.CA, from.Cert: to.Cert, from.Key: to.Key} {
		b, err := os.ReadFile(src)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dst, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// dialAs tries a certificate at a node's port.
func dialAs(t *testing.T, f transport.Files, n *node, cluster string) error {
	t.Helper()
	id, err := transport.LoadIdentity(f)
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := transport.DialAs(t.Context(), n.addr, id, cluster, transport.Instance{})
	if err == nil {
		_ = conn.Close()
	}
	return err
}

// Every certificate runs out and is renewed, more than once, while every
// gateway writes: nothing restarts and no write fails.
func TestPromise_Available_CertificatesRenewUnderWriting(t *testing.T) {
	t.Parallel()
	const life = 30 * time.Second // a busy disk may take many seconds of it
	c := emptyCluster(t)
	first := c.add()
	first.vars = []string{"GATESYNC_TLS_LIFETIME=" + life.String()}
	first.must("init", c.joinFlags(first)...)
	first.start()
	for range 2 {
		n := c.add()
		n.vars = first.vars
		c.admit(n)
	}
	c.waitVoters(3)
	pids, l := c.pids(), newLoad(t, c.nodes...)
	early, info := identityOf(t, first), first.certs()
	if err := dialAs(t, early, c.nodes[1], info.Cluster); err != nil {
		t.Fatalf("a certificate that is valid: %v", err)
	}
	if left := time.Until(info.Node.CertificateExpires); left > life {
		t.Fatalf("the first certificate has %s to live, want at most %s", left, life)
	}
	firsts := map[*node]time.Time{}
	for _, n := range c.nodes {
		firsts[n] = n.certs().Node.CertificateExpires
	}
	for n, begun := range firsts {
		eventually(t, 3*life, n.name+" has outlived its first certificate", func() error {
			if now := n.certs().Node.CertificateExpires; time.Now().Before(begun) || !now.After(begun) {
				return fmt.Errorf("the first one ended at %s, the present one ends at %s", begun, now)
			}
			return nil
		})
	}
	var clock *transport.ClockError
	if err := dialAs(t, early, c.nodes[1], info.Cluster); !errors.As(err, &clock) {
		t.Errorf("a certificate that has run out: %v", err)
	}
	late := c.add() // connections are opened after that as before
	late.vars = first.vars
	c.admit(late)
	late.waits() // until it has looked around
	c.spreads(late, "by-a-joiner")
	l.settle(c)
	l.neverFailed(c)
	if now := c.pids(); fmt.Sprint(now[:3]) != fmt.Sprint(pids) {
		t.Errorf("processes %v, they were %v", now, pids)
	}
}

// The CA is replaced while every gateway writes: nothing restarts, no write
// fails, and at the end certificates of the old one are refused.
func TestPromise_Available_CAReplacedUnderWriting(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	pids, l := c.pids(), newLoad(t, c.nodes...)
	before, old := c.nodes[0].certs(), identityOf(t, c.nodes[0])
	if err := dialAs(t, old, c.nodes[1], before.Cluster); err != nil {
		t.Fatalf("before: %v", err)
	}
	out := c.nodes[1].must("rotate-ca")
	if !strings.Contains(out, before.CA.Fingerprint) || !strings.Contains(out, "the CA is replaced") {
		t.Errorf("rotate-ca says %q", out)
	}
	for _, n := range c.nodes {
		eventually(t, 10*time.Second, n.name+" has done with the old CA", func() error {
			if now := n.certs(); now.CA.Fingerprint == before.CA.Fingerprint || now.CA.Replacing != nil {
				return fmt.Errorf("it says %+v", now.CA)
			}
			return nil
		})
	}
	for _, n := range c.nodes {
		var wrong *transport.WrongClusterError
		eventually(t, 10*time.Second, n.name+" refuses the old CA", func() error {
			if err := dialAs(t, old, n, before.Cluster); !errors.As(err, &wrong) {
				return fmt.Errorf("a certificate of the old CA: %w", err)
			}
			return nil
		})
	}
	c.spreads(c.nodes[2], "after")
	late := c.join() // with a token of the new CA
	late.waits()
	c.spreads(late, "by-a-joiner")
	// Once more: the new CA is replaced like the first.
	c.nodes[0].must("rotate-ca")
	l.settle(c)
	l.neverFailed(c)
	if now := c.pids(); fmt.Sprint(now[:3]) != fmt.Sprint(pids) {
		t.Errorf("processes %v, they were %v", now, pids)
	}
}

// An operator replaces the CA of an own PKI by changing files: both CAs, then
// the certificates, then the new CA alone.
func TestPromise_Available_OwnPKIReplacedByChangingFiles(t *testing.T) {
	t.Parallel()
	c := emptyCluster(t)
	old, fresh := newPKI(t, c.dir, "old"), newPKI(t, c.dir, "new")
	first := c.add()
	first.must("init", append(c.joinFlags(first), old.issue(first.name)...)...)
	first.start()
	second := c.join(old.issue("gw2")...)
	second.waits()
	pids, l := c.pids(), newLoad(t, c.nodes...)
	cluster := first.certs().Cluster
	if a := first.ask("rotate-ca"); a.code != 1 || !strings.Contains(a.stderr, "own PKI") {
		t.Errorf("rotate-ca: exit code %d: %s", a.code, a.stderr)
	}
	stale := transport.FilesIn(t.TempDir())
	copyFile(t, stale.CA, old.file("ca.pem"))
	copyFile(t, stale.Cert, old.file("gw1.pem"))
	copyFile(t, stale.Key, old.file("gw1.key"))

	hangup := func() {
		for _, n := range c.nodes {
			if err := n.daemon.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
	}
	trusts := func(want int) {
		t.Helper()
		for _, n := range c.nodes {
			eventually(t, 10*time.Second, n.name+" has read its files", func() error {
				log, err := os.ReadFile(n.logFile())
				if got := strings.Count(string(log), "took over the cluster's CAs"); err == nil && got != want {
					err = fmt.Errorf("it took over CAs %d times, want %d", got, want)
				}
				return err
			})
		}
	}
	copyFile(t, old.file("ca.pem"), old.file("ca.pem"), fresh.file("ca.pem"))
	hangup()
	trusts(1)
	for _, n := range c.nodes {
		before := n.certs().CA.Fingerprint
		fresh.issue(n.name)
		copyFile(t, old.file(n.name+".key"), fresh.file(n.name+".key"))
		copyFile(t, old.file(n.name+".pem"), fresh.file(n.name+".pem"))
		hangup()
		eventually(t, 10*time.Second, n.name+" shows its new certificate", func() error {
			if n.certs().CA.Fingerprint == before {
				return errors.New("it still shows the old one")
			}
			return nil
		})
		c.spreads(n, "with-new-certificates-on-"+n.name)
	}
	copyFile(t, old.file("ca.pem"), fresh.file("ca.pem"))
	hangup()
	trusts(2)
	if err := dialAs(t, stale, second, cluster); err == nil {
		t.Error("a certificate of the old CA opens a door")
	}
	c.spreads(first, "with-the-new-CA-alone")
	l.settle(c)
	l.neverFailed(c)
	if now := c.pids(); fmt.Sprint(now) != fmt.Sprint(pids) {
		t.Errorf("processes %v, they were %v", now, pids)
	}
}

// copyFile makes a file of others, one behind the other.
func copyFile(t *testing.T, to string, from ...string) {
	t.Helper()
	var all []byte
	for _, f := range from {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	if err := os.WriteFile(to, all, 0o600); err != nil {
		t.Fatal(err)
	}
}
