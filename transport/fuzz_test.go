package transport

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

// FuzzToken: a token has one spelling, but for case and white space.
func FuzzToken(f *testing.F) {
	ca, _, err := newCA(cluster.NewClusterID(), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	tok, err := NewToken(ca)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tok.String())
	f.Add(strings.ToUpper(tok.String()[:60]) + " \n" + tok.String()[60:])
	f.Add("gs1-")
	f.Add(strings.Repeat("gs1-", 1000))
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err != nil {
			return
		}
		if canonical := strings.ToLower(strings.Join(strings.Fields(s), "")); tok.String() != canonical {
			t.Errorf("%q is written as %q", s, tok)
		}
		if len(tok.Secret) != tokenSecretSize || strings.Contains(tok.GoString(), string(tok.Secret)) {
			t.Errorf("secret of %d bytes", len(tok.Secret))
		}
	})
}

// FuzzGreeting: a greeting is read within its bounds, and as it was written.
func FuzzGreeting(f *testing.F) {
	var good bytes.Buffer
	if err := writeGreeting(&good, greeting{Verdict: verdictOK, Clock: 7, Cluster: "c-1", Node: "n-1"}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte{0xff, 0xff, '{'})
	f.Add([]byte{0, 2, '{', '}', 'x'})
	f.Add([]byte{0, 4, 'n', 'u', 'l', 'l'})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		g, err := readGreeting(r)
		if read := len(b) - r.Len(); read > 2+maxGreeting {
			t.Errorf("read %d bytes", read)
		}
		if err != nil {
			return
		}
		_ = verdictError("host:1", g)
		var again bytes.Buffer
		if err := writeGreeting(&again, g); err != nil {
			t.Fatal(err)
		}
		if again.Len() > 2+maxGreeting { // letters that JSON writes longer than it reads them
			return
		}
		if back, err := readGreeting(&again); err != nil || back != g {
			t.Errorf("%+v comes back as %+v, %v", g, back, err)
		}
	})
}

// FuzzInstance: whatever a caller says of its run is read as nothing, or as
// what it is.
func FuzzInstance(f *testing.F) {
	f.Add(Instance{Incarnation: 2, Start: 3, Nonce: NewNonce(), Term: 4, Last: 5}.alpn())
	f.Add(instancePrefix + "1.2.3.4")
	f.Add(instancePrefix + "99999999999999999999.-1.x.y.z")
	f.Fuzz(func(t *testing.T, name string) {
		i := parseInstance([]string{"h2", name})
		if i == (Instance{}) {
			return
		}
		if again := parseInstance([]string{i.alpn()}); again.incarnation() != i.incarnation() || again.Start != i.Start || again.Nonce != i.Nonce || again.Term != i.Term || again.Last != i.Last {
			t.Errorf("%q is %+v, and that is %+v", name, i, again)
		}
	})
}

// FuzzCSR: whatever is asked to be signed, the certificate names the node that
// asked, signs nothing itself, and ends.
func FuzzCSR(f *testing.F) {
	ca, key, err := newCA("c-1", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	mine, err := NewKey()
	if err != nil {
		f.Fatal(err)
	}
	csr, err := NewCSR(mine)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Add([]byte("rubbish"))
	f.Fuzz(func(t *testing.T, csr []byte) {
		text, err := (CA{ClusterID: "c-1", Cert: ca, Key: key}).Sign(csr, "n-1", "gw1", time.Now())
		if err != nil {
			return
		}
		c, err := firstCert(text)
		if err != nil {
			t.Fatal(err)
		}
		_, id, ok := subject(c)
		if !ok || id != "n-1" || c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature || len(c.DNSNames)+len(c.IPAddresses) > 0 {
			t.Errorf("signed for %q: %+v", id, c)
		}
	})
}

// FuzzCertificates: no file makes the reader of certificates and keys panic,
// and no chain is believed that our CA did not sign.
func FuzzCertificates(f *testing.F) {
	ca, key, err := newCA("c-1", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	foreign, _, err := newCA("c-1", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	roots, err := parseCerts(ca)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ca)
	f.Add(key)
	f.Add(append(bytes.Clone(foreign), ca...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseKey(b)
		certs, err := parseCerts(b)
		if err != nil {
			return
		}
		v := verifier{roots: roots, clusterID: "c-1"}
		if id, _, err := v.identify("host:1", certs, x509.ExtKeyUsageClientAuth); err == nil && id != "" {
			t.Errorf("believed to be %q", id)
		}
	})
}
