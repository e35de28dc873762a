package transport

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/integration/tunnel"
)

// testProxy is a proxy of one test, to hosts that only it knows.
type testProxy struct {
	tunnel.Proxy
	addr  string
	hosts map[string]string // HOST:PORT → where that really is
	says  string            // instead of asking anybody, "": as it should
}

func (p *testProxy) start(t *testing.T) *testProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	p.Instead = func() string { return p.says }
	p.Dial = func(hostport string) (net.Conn, error) {
		to, ok := p.hosts[hostport]
		if !ok {
			return nil, errors.New("no such host")
		}
		return net.Dial("tcp", to)
	}
	p.Serve(t, l)
	return p
}

// proxied sets the variables for one test.
func proxied(t *testing.T, value, except string) {
	for _, k := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"} {
		t.Setenv(k, "")
	}
	t.Setenv("HTTPS_PROXY", value)
	t.Setenv("NO_PROXY", except)
}

// Nodes that know one another only by names that the proxy knows meet through it.
func TestThroughAProxy(t *testing.T) {
	ca := newTestCA(t)
	p := (&testProxy{Proxy: tunnel.Proxy{Auth: "gw:secret"}, hosts: map[string]string{}}).start(t)
	proxied(t, "http://gw:secret@"+p.addr, "")
	there := startNode(t, ca, newBook(), "n-1").Addr().String()
	p.hosts["gw1.test:7946"] = there
	cc, peer, err := DialAs(context.Background(), "gw1.test:7946", ca.identity(t, "n-2"), ca.id, Instance{})
	if err != nil {
		t.Fatal(err)
	}
	_ = cc.Close()
	if peer != "n-1" {
		t.Errorf("%s answers", peer)
	}
	if got := ProxyName("gw1.test:7946"); got != "http://"+p.addr {
		t.Errorf("people are shown %q", got)
	}
	// Loopback is never behind a proxy, nor what NO_PROXY names.
	t.Setenv("NO_PROXY", "10.0.0.0/8,.inside.test")
	for _, addr := range []string{there, "localhost:1", "[::1]:1", "[fe80::1%eth0]:1", "10.1.2.3:1", "gw.inside.test:1"} {
		if p, err := ProxyFor(addr); p != nil || err != nil {
			t.Errorf("%s is reached through %v, %v", addr, p, err)
		}
	}
	asked := len(p.Asked())
	cc, _, err = DialAs(context.Background(), there, ca.identity(t, "n-2"), ca.id, Instance{})
	if err != nil {
		t.Fatal(err)
	}
	_ = cc.Close()
	if now := p.Asked(); len(now) != asked {
		t.Errorf("the proxy was asked for %q", now)
	}
}

// Whatever a proxy answers, or does not, is said with what to do about it, and
// without the password.
func TestProxyErrors(t *testing.T) {
	tests := []struct {
		name   string
		proxy  *testProxy
		url    func(addr string) string
		says   []string
		status int
	}{
		{"no name and password", &testProxy{Proxy: tunnel.Proxy{Auth: "gw:another"}}, nil, []string{"407", "NAME:PASSWORD"}, 407},
		{"another password", &testProxy{Proxy: tunnel.Proxy{Auth: "gw:another"}}, func(a string) string { return "http://gw:secret@" + a }, []string{"407", "NAME:PASSWORD"}, 407},
		{"port not allowed", &testProxy{says: "HTTP/1.1 403 Forbidden\r\n\r\n"}, nil, []string{"403", "CONNECT", "443"}, 403},
		{"node not reached", &testProxy{}, nil, []string{"502", "cannot reach that node"}, 502},
		{"gateway timeout", &testProxy{says: "HTTP/1.0 504 Gateway Timeout\r\n\r\nlong page"}, nil, []string{"504", "cannot reach that node"}, 504},
		{"no answer", &testProxy{Proxy: tunnel.Proxy{Hangs: true}}, nil, []string{"no answer", "deadline"}, 0},
		{"no HTTP", &testProxy{says: "220 mail.example.com ESMTP\r\n"}, nil, []string{"not HTTP"}, 0},
		{"no end of it", &testProxy{says: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20)}, nil, []string{"without an answer"}, 0},
		{"it speaks first", &testProxy{says: "HTTP/1.1 200 OK\r\n\r\nhello"}, nil, []string{"before we do"}, 0},
		{"nobody there", &testProxy{}, func(string) string { return "http://127.0.0.1:1" }, []string{"refused", "check that it runs"}, 0},
		{"no TLS there", &testProxy{says: "HTTP/1.1 400 Bad Request\r\n\r\n"}, func(a string) string { return "https://" + a }, []string{"handshake", "check that it runs"}, 0},
		{"no URL", &testProxy{}, func(string) string { return "http://gw:secret@[::1" }, []string{"no URL"}, 0},
		{"another kind", &testProxy{}, func(a string) string { return "socks5://gw:secret@" + a }, []string{"names no HTTP proxy"}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.proxy.start(t)
			url := "http://" + p.addr
			if tt.url != nil {
				url = tt.url(p.addr)
			}
			proxied(t, url, "")
			ctx := context.Background()
			if tt.proxy.Hangs {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Second)
				defer cancel()
			}
			_, err := DialTarget(ctx, "gw9.test:7950", Token{Fingerprint: strings.Repeat("0", 64)})
			var said *ProxyError
			if !errors.As(err, &said) || said.Status != tt.status {
				t.Fatalf("%v (%T)", err, err)
			}
			for _, want := range append(tt.says, "gw9.test", "NO_PROXY") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%v\nshows the password", err)
			}
		})
	}
}
