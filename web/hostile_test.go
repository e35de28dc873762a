package web_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/web"
)

// serving runs a server until the test ends.
func serving(t *testing.T) *web.Server {
	t.Helper()
	s, err := web.Listen(web.Config{Listen: "127.0.0.1:0", Source: fixed(current()), MaxLag: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// Connections that say nothing, or not enough, neither pile up nor keep a
// probe from its answer.
func TestSlowClientsHoldNoProbeUp(t *testing.T) {
	s := serving(t)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for i := range 1000 {
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		switch i % 3 {
		case 0:
			_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: ") // and so on, slowly
		case 1:
			_, _ = io.WriteString(c, "\x16\x03\x01 rubbish\r\n\r\n")
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	for range 10 {
		res, err := client.Get("http://" + s.Addr() + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	left := len(open)
	for end := time.Now().Add(time.Minute); left > 256 && time.Now().Before(end); {
		left = 0
		for _, c := range open {
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond)) // it may pass before the read begins: then it is asked again
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				left++
			}
		}
	}
	if left > 256 {
		t.Errorf("%d connections are open", left)
	}
}

func TestHeadersWithoutEndAreRefused(t *testing.T) {
	s := serving(t)
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	go func() {
		_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 64<<10))
	}()
	b := make([]byte, 12)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "HTTP/1.1 431" {
		t.Errorf("%q %v", b, err)
	}
}
