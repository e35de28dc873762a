package raftstore

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// sameWithin: a line that came so shortly before is the same trouble still.
	sameWithin = time.Minute
	// remindEvery is how often trouble that goes on is told again.
	remindEvery = time.Hour
	// troublesMost bounds what is remembered.
	troublesMost = 256
)

// raftLog hands Raft's log lines to slog. Raft is talkative: what it calls
// information is for debugging here (the Store itself tells of a new leader),
// and trouble with a peer is told when it begins, not at each attempt. Safe for
// concurrent use.
type raftLog struct {
	to  *slog.Logger
	now func() time.Time

	mu       sync.Mutex
	troubles map[string]*trouble
}

// trouble is when a line last came, and was last told.
type trouble struct{ came, told time.Time }

func newRaftLogger(to *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(&raftLog{to: to, now: time.Now, troubles: map[string]*trouble{}})
	return l
}

// Accept implements hclog.SinkAdapter.
func (l *raftLog) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch {
	case level < hclog.Warn, !l.news(about(msg, args)):
	case level == hclog.Warn:
		to = slog.LevelWarn
	case level == hclog.Error:
		to = slog.LevelError
	}
	l.to.Log(context.Background(), to, "raft: "+msg, args...)
}

// about is what makes two lines the same: the text and the peer. Times,
// indexes and addresses of a moment do not.
func about(msg string, args []any) string {
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "peer", "server-id", "target", "from", "candidate", "id":
			msg += fmt.Sprintf(" %v", args[i+1])
		}
	}
	return msg
}

// news tells whether a line has to be told again.
func (l *raftLog) news(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, t := l.now(), l.troubles[key]
	if t == nil {
		if len(l.troubles) >= troublesMost {
			clear(l.troubles)
		}
		t = &trouble{}
		l.troubles[key] = t
	}
	again := now.Sub(t.came) > sameWithin || now.Sub(t.told) > remindEvery
	t.came = now
	if again {
		t.told = now
	}
	return again
}
