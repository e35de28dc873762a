package raftstore

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLog hands Raft's log lines to slog. Raft is talkative: what it calls
// information is for debugging here; the Store itself tells of a new leader.
type raftLog struct{ to *slog.Logger }

func newRaftLogger(to *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(raftLog{to})
	return l
}

// Accept implements hclog.SinkAdapter.
func (l raftLog) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Warn:
		to = slog.LevelWarn
	case hclog.Error:
		to = slog.LevelError
	}
	l.to.Log(context.Background(), to, "raft: "+msg, args...)
}
