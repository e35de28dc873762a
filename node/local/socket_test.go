package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSocketInADeepDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 40))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var off *NotRunningError
	if _, err := Dial(t.Context(), dir); !errors.As(err, &off) {
		t.Errorf("nobody listens: %v", err)
	}
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if info, err := os.Lstat(Socket(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", info, err)
	}
	srv := grpc.NewServer()
	go srv.Serve(ln)
	defer srv.Stop()
	conn, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// The kernel accepts for a daemon that is stopped or starved.
func TestDaemonThatDoesNotAnswer(t *testing.T) {
	dir := t.TempDir()
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var hung *HungError
	if _, err := Dial(ctx, dir); !errors.As(err, &hung) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v, want a *HungError", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	conn, err := Dial(ctx, dir)
	if errors.As(err, &hung) {
		t.Errorf("whoever interrupts is told of a daemon that hangs: %v", err)
	}
	if err == nil {
		conn.Close()
	}
}
