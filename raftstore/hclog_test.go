package raftstore

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// A peer that is down for hours is told of when it begins, once an hour, and
// when it begins anew.
func TestRaftTellsOfTroubleOnce(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1_700_000_000, 0)
	l := &raftLog{to: slog.New(slog.NewTextHandler(&out, nil)), now: func() time.Time { return now }, troubles: map[string]*trouble{}}
	fail := func(peer string) {
		l.Accept("", hclog.Error, "failed to heartbeat to", "peer", peer, "backoff time", now.String(), "error", "refused")
	}
	lines := func() int { return strings.Count(out.String(), "\n") }
	for range 100 * 60 * 2 { // a hundred minutes, every half second
		fail("a")
		now = now.Add(500 * time.Millisecond)
	}
	if n := lines(); n != 2 {
		t.Errorf("%d lines about a peer that was down for 100 minutes, want 2", n)
	}
	fail("b")
	if n := lines(); n != 3 {
		t.Errorf("%d lines: another peer's trouble is news", n)
	}
	now = now.Add(2 * time.Minute)
	fail("a")
	if n := lines(); n != 4 {
		t.Errorf("%d lines: trouble that begins anew is news", n)
	}
	l.Accept("", hclog.Info, "entering follower state")
	if n := lines(); n != 4 {
		t.Errorf("%d lines: what Raft calls information is not for operators", n)
	}
}
