package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config of a Server.
type Config struct {
	Listen string // host:port
	Source Source
	MaxLag time.Duration // of /readyz
	Log    *slog.Logger
}

// Server listens from Listen on and answers while Run runs.
type Server struct {
	ln   net.Listener
	http *http.Server
}

// Listen opens the port. Run must be called, or Close.
func Listen(cfg Config) (*Server, error) {
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("http endpoint: %w (set `http` in gatesync.yaml to a free address, or to \"\" to switch it off)", err)
	}
	s := &http.Server{
		Handler:           Handler(cfg.Source, cfg.MaxLag),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second, // of a body that nobody asked for
		WriteTimeout:      30 * time.Second, // to a client that does not read
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	if cfg.Log != nil {
		s.ErrorLog = slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug)
	}
	return &Server{ln: &bounded{Listener: ln, max: maxConns}, http: s}, nil
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Run answers until ctx ends; requests under way then have a second.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if s.http.Shutdown(grace) != nil {
		_ = s.http.Close() // a scraper that hangs does not keep the daemon
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close releases the port of a server that was never run.
func (s *Server) Close() error { return errors.Join(s.http.Close(), ignoreClosed(s.ln.Close())) }

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Handler is the server's handler, without a port.
func Handler(source Source, maxLag time.Duration) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(newCollector(source), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := source.State().Unready(maxLag); len(why) > 0 {
			answer(w, http.StatusServiceUnavailable, strings.Join(why, "\n")+"\n")
			return
		}
		answer(w, http.StatusOK, "ready\n")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	return mux
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text)) // a client that left is no error of ours
}
