package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// proxyAnswer bounds what a proxy may say before the tunnel begins.
const proxyAnswer = 64 << 10

// connect makes a TCP connection to a node or a target: directly, or through the
// HTTP proxy that HTTPS_PROXY (https_proxy) names and NO_PROXY (no_proxy) does not
// exempt the address from. The whole of it is bounded by ctx. An error of the
// way to the proxy, or of the proxy, is a *ProxyError.
func connect(ctx context.Context, addr string) (net.Conn, error) {
	proxy, err := ProxyFor(addr)
	if err != nil {
		return nil, err
	}
	if proxy == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	c, err := dialProxy(ctx, proxy)
	if err != nil {
		return nil, &ProxyError{Proxy: proxyName(proxy), Addr: addr, Err: plain(err)}
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // ends a read or write
	err = askTunnel(c, proxy, addr)
	if !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		_ = c.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer: %w", ctx.Err())
		}
		var said *ProxyError
		if errors.As(err, &said) {
			return nil, said
		}
		return nil, &ProxyError{Proxy: proxyName(proxy), Addr: addr, Err: plain(err)}
	}
	return c, nil
}

// ProxyFor returns the proxy through which an address is reached, nil for none. It
// reads the environment. Loopback and link-local addresses are never behind a
// proxy.
func ProxyFor(addr string) (*url.URL, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); err == nil && (ip.IsLoopback() || ip.IsLinkLocalUnicast()) {
		return nil, nil
	}
	proxy, err := httpproxy.FromEnvironment().ProxyFunc()(&url.URL{Scheme: "https", Host: addr})
	if err != nil || proxy != nil && strings.Trim(proxy.Path, "/") != "" { // the error shows the whole value, password and all
		return nil, &ProxyError{Addr: addr, Err: errors.New("HTTPS_PROXY is no URL: write it like http://proxy.example.com:3128")}
	}
	if proxy != nil && (proxy.Scheme != "http" && proxy.Scheme != "https" || proxy.Host == "") {
		return nil, &ProxyError{Proxy: proxyName(proxy), Addr: addr, Err: errors.New("HTTPS_PROXY names no HTTP proxy: write it like http://proxy.example.com:3128")}
	}
	return proxy, nil
}

// ProxyName is what people are shown of the proxy on the way to an address: never
// its password. "" for none.
func ProxyName(addr string) string {
	proxy, err := ProxyFor(addr)
	if err != nil || proxy == nil {
		return ""
	}
	return proxyName(proxy)
}

func proxyName(u *url.URL) string { return u.Scheme + "://" + u.Host }

// dialProxy connects to the proxy itself.
func dialProxy(ctx context.Context, u *url.URL) (net.Conn, error) {
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil || u.Scheme == "http" {
		return c, err
	}
	t := tls.Client(c, &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12})
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return t, nil
}

// askTunnel asks the proxy for a tunnel to addr.
func askTunnel(c net.Conn, proxy *url.URL, addr string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{"User-Agent": {"gatesync"}}}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(c); err != nil {
		return err
	}
	// Nobody but the proxy speaks before we do: what is read here is its own.
	br := bufio.NewReader(io.LimitReader(c, proxyAnswer))
	res, err := http.ReadResponse(br, req)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("it closed the connection without an answer")
		}
		var op net.Error
		if errors.As(err, &op) {
			return err
		}
		return errors.New("its answer is not HTTP: is it an HTTP proxy?")
	}
	_ = res.Body.Close() // that of a refusal goes with the connection
	if res.StatusCode/100 != 2 {
		return &ProxyError{Proxy: proxyName(proxy), Addr: addr, Status: res.StatusCode, Err: errors.New(strings.TrimSpace(fmt.Sprintf("%.60q", res.Status)))}
	}
	if br.Buffered() > 0 {
		return errors.New("it speaks in the tunnel before we do")
	}
	return nil
}

// ProxyError: the HTTP proxy of the environment is in the way.
type ProxyError struct {
	Proxy  string // without name and password; "" where the variable cannot be read
	Addr   string // that was to be reached
	Status int    // of HTTP, that it answered; 0: none
	Err    error
}

func (e *ProxyError) Error() string {
	host, port, _ := net.SplitHostPort(e.Addr)
	do := "check the variable"
	switch {
	case e.Status == http.StatusProxyAuthRequired:
		do = "it wants a name and a password (Basic): HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"
	case e.Status == http.StatusForbidden, e.Status == http.StatusMethodNotAllowed:
		do = "it does not allow connections to port " + port + ": have it allow CONNECT to that port, or let that node listen (or advertise) a port that it allows, such as 443"
	case e.Status >= 500:
		do = "it cannot reach that node"
	case e.Status == 0 && e.Proxy != "":
		do = "check that it runs"
	}
	who := ""
	if e.Proxy != "" {
		who = " " + e.Proxy
	}
	return fmt.Sprintf("the proxy%s of HTTPS_PROXY: %v: %s; to go without it, name %s in NO_PROXY", who, e.Err, do, host)
}

// Unwrap returns the cause.
func (e *ProxyError) Unwrap() error { return e.Err }
