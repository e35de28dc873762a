package web_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatesync/gatesync/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fixed web.State

func (f fixed) State() web.State { return web.State(f) }

func get(t *testing.T, s web.State, path string) (int, string) {
	t.Helper()
	rec := httptest.NewRecorder()
	web.Handler(fixed(s), 30*time.Second).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
	return rec.Code, rec.Body.String()
}

func current() web.State {
	return web.State{
		Version: "v1", Node: "n-1", Name: "gw1", Revision: 12, Quorum: true, CaughtUp: true, Raft: "follower",
		Trees:     []web.Tree{{Name: "server", Applied: 11, Lag: 2500 * time.Millisecond, Conflicts: 3, Held: 4}},
		Blobs:     web.Blobs{Count: 5, Bytes: 600, Disk: 700},
		Carriers:  []web.Carrier{{Name: "push", Whole: web.Moved{Sent: 8, SentWire: 8, Received: 9, ReceivedWire: 9}, Deltas: web.Moved{Sent: 100, SentWire: 3}}},
		Proposals: map[string]uint64{"committed": 6, "conflict": 1},
	}
}

func TestReadiness(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*web.State)
		code   int
		text   string
	}{
		"current":         {func(*web.State) {}, 200, "ready"},
		"behind":          {func(s *web.State) { s.Trees[0].Lag = 31 * time.Second }, 503, "tree server is 31s behind"},
		"log not read":    {func(s *web.State) { s.CaughtUp = false }, 503, "still reading the log"},
		"root lost":       {func(s *web.State) { s.Trees[0].Lost = "no marker" }, 503, "tree server: no marker"},
		"without quorum":  {func(s *web.State) { s.Quorum = false }, 200, "ready"}, // gateways keep serving what they have
		"healthz says ok": {func(s *web.State) { s.CaughtUp = false }, 200, "ok"},
	} {
		s := current()
		c.change(&s)
		path := "/readyz"
		if name == "healthz says ok" {
			path = "/healthz"
		}
		if code, text := get(t, s, path); code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%s: %d %q, want %d %q", name, code, text, c.code, c.text)
		}
	}
}

func TestMetrics(t *testing.T) {
	code, text := get(t, current(), "/metrics")
	if code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	for _, want := range []string{
		`gatesync_build_info{name="gw1",node="n-1",version="v1"} 1`,
		"gatesync_revision 12",
		`gatesync_tree_applied_revision{tree="server"} 11`,
		`gatesync_tree_apply_lag_seconds{tree="server"} 2.5`,
		`gatesync_proposals_total{result="committed"} 6`,
		`gatesync_conflicts{tree="server"} 3`,
		`gatesync_held{tree="server"} 4`,
		"gatesync_blob_bytes 600",
		`gatesync_carrier_bytes_total{carrier="push",direction="sent"} 108`,
		`gatesync_carrier_content_bytes_total{carrier="push",direction="sent",encoding="delta"} 100`,
		`gatesync_carrier_wire_bytes_total{carrier="push",direction="sent",encoding="delta"} 3`,
		`gatesync_carrier_wire_bytes_total{carrier="push",direction="received",encoding="whole"} 9`,
		`gatesync_raft_state{state="follower"} 1`,
		`gatesync_raft_state{state="leader"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %q in\n%s", want, text)
		}
	}
}

func TestServerAnswersAndStops(t *testing.T) {
	s, err := web.Listen(web.Config{Listen: "127.0.0.1:0", Source: fixed(current()), MaxLag: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + s.Addr() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if string(b) != "ok\n" {
		t.Errorf("%q", b)
	}
	if _, err := web.Listen(web.Config{Listen: s.Addr()}); err == nil || !strings.Contains(err.Error(), "set `http`") {
		t.Errorf("a taken port: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
