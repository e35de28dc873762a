package node

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
)

const (
	// sameWithin: a line that came so shortly before is the same trouble still.
	sameWithin = time.Minute
	// remindEvery is how often trouble that goes on is told again.
	remindEvery = time.Hour
	// troublesMost bounds what is remembered.
	troublesMost = 1024
)

// steadyLog tells of trouble when it begins and not at each attempt: a peer
// that is down for a night is a few lines, not thousands. A warning or an error
// that was told a moment ago (the same text about the same things, whatever the
// numbers in it) goes on at the level debug; trouble that lasts is told once an
// hour. A line that names no peer and no error tells of a change of state and is
// never left out. Safe for concurrent use.
type steadyLog struct {
	slog.Handler
	about string // the attributes of the logger, as far as they count
	seen  *troubles
}

// troubles is what was told of.
type troubles struct {
	mu  sync.Mutex
	all map[string]*trouble
}

// trouble is when a line last came, and was last told.
type trouble struct{ came, told time.Time }

// steady wraps a logger's handler.
func steady(log *slog.Logger) *slog.Logger {
	return slog.New(&steadyLog{Handler: log.Handler(), seen: &troubles{all: map[string]*trouble{}}})
}

// WithAttrs implements slog.Handler.
func (l *steadyLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	about := l.about
	for _, a := range attrs {
		about += subject(a)
	}
	return &steadyLog{Handler: l.Handler.WithAttrs(attrs), about: about, seen: l.seen}
}

// WithGroup implements slog.Handler.
func (l *steadyLog) WithGroup(name string) slog.Handler {
	return &steadyLog{Handler: l.Handler.WithGroup(name), about: l.about, seen: l.seen}
}

// Handle implements slog.Handler.
func (l *steadyLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		key := l.about + r.Message
		r.Attrs(func(a slog.Attr) bool { key += subject(a); return true })
		attempt := key != l.about+r.Message || strings.HasPrefix(r.Message, "raft: ")
		if attempt && !l.seen.news(key, r.Time) {
			if !l.Enabled(ctx, slog.LevelDebug) {
				return nil
			}
			r = r.Clone()
			r.Level = slog.LevelDebug
		}
	}
	return l.Handler.Handle(ctx, r)
}

// subject is what an attribute adds to what a line is about. Times, counts and
// the ports of a moment do not count.
func subject(a slog.Attr) string {
	switch a.Key {
	case "peer", "server-id", "target", "from", "candidate", "verdict", "tree", "path", "part", "id", "leader":
		return fmt.Sprintf(" %s=%v", a.Key, a.Value)
	case "err", "error":
		return " " + strings.Map(func(r rune) rune {
			if unicode.IsDigit(r) {
				return -1
			}
			return r
		}, a.Value.String())
	}
	return ""
}

// news tells whether a line has to be told.
func (t *troubles) news(key string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.all[key]
	if known == nil {
		if len(t.all) >= troublesMost {
			clear(t.all)
		}
		known = &trouble{}
		t.all[key] = known
	}
	again := now.Sub(known.came) > sameWithin || now.Sub(known.told) > remindEvery
	known.came = now
	if again {
		known.told = now
	}
	return again
}
