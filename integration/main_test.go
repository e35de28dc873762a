package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// gatesync is the path of the binary under test. It is set once, by TestMain.
var gatesync string

// TestMain builds the binary. Under the name of a helper (see replay_test.go)
// the test binary does the helper's work instead.
func TestMain(m *testing.M) {
	if sock := os.Getenv(confirmSocket); sock != "" {
		os.Exit(confirm(sock, os.Args[1:]))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if gatesync = os.Getenv("GATESYNC_BIN"); gatesync == "" {
		dir, err := os.MkdirTemp("", "gatesync-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		gatesync = filepath.Join(dir, "gatesync")
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", "hashicorpmetrics", "-o", gatesync, "../cmd/gatesync")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building gatesync: %v\n%s", err, out)
			return 1
		}
	}
	code := m.Run()
	figures.print(os.Stdout)
	return code
}

// size returns how large a scenario is: short by default, so that all of them
// end within minutes on two slow cores, full with GATESYNC_LONG.
func size[T any](short, full T) T {
	if os.Getenv("GATESYNC_LONG") != "" {
		return full
	}
	return short
}

// eventually asks until ask returns nil, and fails the test with its last
// error when the time is up.
func eventually(t testing.TB, limit time.Duration, what string, ask func() error) time.Duration {
	t.Helper()
	start := time.Now()
	err := poll(t.Context(), limit, ask)
	if err != nil {
		t.Fatalf("%s: not within %v: %v", what, patient(limit), err)
	}
	return time.Since(start)
}

// patience is what everything has that is waited for: a disk that many share
// took 22 s over a flush, and a write is a chain of them. Limits beyond it are for
// what takes long by itself.
const patience = 5 * time.Minute

// patient is a limit that only ends what hangs. One of a few seconds asks for
// what has to hold already, and stays.
func patient(limit time.Duration) time.Duration {
	if limit > 5*time.Second {
		return max(limit, patience)
	}
	return limit
}

// poll asks until ask returns nil, at growing intervals.
func poll(ctx context.Context, limit time.Duration, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patient(limit))
	defer cancel()
	pause := 5 * time.Millisecond
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if err2 := sleep(ctx, pause); err2 != nil {
			return errors.Join(err2, err)
		}
		pause = min(2*pause, 250*time.Millisecond)
	}
}

// sleep waits as a writer or a reader between two steps, never for gatesync.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
