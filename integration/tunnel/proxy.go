package tunnel

import (
	"bufio"
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
)

// Proxy is an HTTP proxy. Its fields are set before Serve.
type Proxy struct {
	Auth    string                                  // NAME:PASSWORD that it asks for, "": none
	Dial    func(hostport string) (net.Conn, error) // reaches what it is asked for
	Instead func() string                           // what it says instead, "": as it should; nil: always as it should
	Hangs   bool                                    // never says anything

	mu    sync.Mutex
	asked []string
}

// Serve serves what l accepts, until the test ends.
func (p *Proxy) Serve(t testing.TB, l net.Listener) {
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				p.serve(ctx, c)
			})
		}
	})
}

// Asked returns the method and the address of each request so far.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

func (p *Proxy) serve(ctx context.Context, c net.Conn) {
	br := bufio.NewReader(c)
	req, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, req.Method+" "+req.Host)
	p.mu.Unlock()
	if p.Hangs {
		<-ctx.Done()
		return
	}
	if says := p.says(req); says != "" {
		_, _ = io.WriteString(c, says)
		return
	}
	up, err := p.Dial(req.Host)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer up.Close()
	defer context.AfterFunc(ctx, func() { _ = up.Close() })()
	_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(up, br); _ = up.(*net.TCPConn).CloseWrite() })
	_, _ = io.Copy(c, up)
	_ = c.Close()
	wg.Wait()
}

// says is the refusal of a request, "": none.
func (p *Proxy) says(req *http.Request) string {
	if p.Instead != nil {
		if s := p.Instead(); s != "" {
			return s
		}
	}
	switch {
	case req.Method != http.MethodConnect:
		return "HTTP/1.1 405 Method Not Allowed\r\n\r\n"
	case p.Auth != "" && req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(p.Auth)):
		return "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 6\r\n\r\nsorry\n"
	}
	return ""
}
