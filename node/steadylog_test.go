package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A peer that is down for hours is told of when it begins, once an hour, when
// something else ails it, and when it begins anew.
func TestTroubleIsToldWhenItBegins(t *testing.T) {
	var out bytes.Buffer
	log := steady(slog.New(slog.NewTextHandler(&out, nil))).With("tree", "server")
	now, port, lines := time.Unix(1_700_000_000, 0), 40_000, 0
	fail := func(level slog.Level, peer, why string) {
		port++
		r := slog.NewRecord(now, level, "cannot reach", 0)
		r.Add("peer", peer, "remote", port, "error", fmt.Errorf("dial from port %d: %s", port, why))
		if err := log.Handler().Handle(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	told := func(what string, want int) {
		t.Helper()
		all := strings.Count(out.String(), "\n")
		if all-lines != want {
			t.Errorf("%s: %d lines, want %d", what, all-lines, want)
		}
		lines = all
	}
	for range 100 * 60 * 2 {
		fail(slog.LevelWarn, "a", "refused")
		now = now.Add(500 * time.Millisecond)
	}
	told("a hundred minutes of the same", 2)
	fail(slog.LevelWarn, "b", "refused")
	told("another peer", 1)
	fail(slog.LevelWarn, "a", "its clock is wrong")
	told("another reason", 1)
	now = now.Add(2 * time.Minute)
	fail(slog.LevelError, "a", "refused")
	told("it begins anew", 1)
	fail(slog.LevelInfo, "a", "refused")
	fail(slog.LevelInfo, "a", "refused")
	told("what is no trouble is never left out", 2)
	log.Warn("the log has no leader")
	log.Warn("the log has no leader")
	told("nor is a change of state", 2)
}
