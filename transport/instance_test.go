package transport

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

func TestInstanceTravelsAsAName(t *testing.T) {
	want := Instance{Incarnation: 3, Start: 12, Nonce: NewNonce(), Term: 7, Last: 1 << 40}
	if got := parseInstance([]string{protoGRPC, want.alpn()}); got != want {
		t.Errorf("%+v came back as %+v", want, got)
	}
	for _, bad := range []string{instancePrefix, instancePrefix + "1.2.x.3", instancePrefix + "a.2.x.3.4", "h2"} {
		if got := parseInstance([]string{bad}); got != (Instance{}) {
			t.Errorf("%q reads as %+v", bad, got)
		}
	}
}

// TestTwoRunsOfOneNode: who may come in, one claim after the other.
func TestTwoRunsOfOneNode(t *testing.T) {
	now := time.Unix(1000, 0)
	fresh := 0
	all := NewInstances("n-1", Instance{Nonce: "me"}, nil, func() { fresh++ })
	all.now = func() time.Time { return now }
	run := func(start uint64, nonce string, last uint64) Instance {
		return Instance{Incarnation: 1, Start: start, Nonce: nonce, Term: 1, Last: last}
	}
	claim := func(is Instance, want verdict) (net.Conn, func()) {
		t.Helper()
		a, b := net.Pipe()
		t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
		v, _, release := all.admit("n-2", is, a)
		if v != want {
			t.Errorf("%+v: %s, want %s", is, v, want)
		}
		return b, release
	}
	closed := func(c net.Conn) bool {
		_ = c.SetReadDeadline(time.Now())
		_, err := c.Read(make([]byte, 1))
		return errors.Is(err, io.EOF)
	}

	_, gone := claim(run(1, "a", 10), verdictOK)
	all.Reached("n-2", 3, 20)
	gone()
	claim(run(2, "short", 19), verdictWentBack) // a log that is shorter than it was
	claim(Instance{Start: 2, Nonce: "vote", Term: 2, Last: 20}, verdictWentBack)
	restarted := Instance{Start: 2, Nonce: "b", Term: 3, Last: 20}
	conn, gone := claim(restarted, verdictOK) // a restart: the first has closed its connections
	claim(run(2, "c", 99), verdictPast)       // as many starts, and another run: a copy
	claim(run(1, "a", 99), verdictPast)       // the run before

	twin := Instance{Start: 3, Nonce: "twin", Term: 3, Last: 20}
	claim(twin, verdictWait) // a later start while the other's connection is open
	if !closed(conn) {
		t.Error("the connection of the run that may be gone stays open")
	}
	gone()
	_, gone = claim(restarted, verdictOK) // it is alive
	claim(twin, verdictWait)
	now = now.Add(contestFor)
	claim(twin, verdictTwin)

	late := Instance{Start: 4, Nonce: "late", Term: 3, Last: 20}
	claim(late, verdictWait)
	gone() // its connection was cut
	now = now.Add(contestFor)
	claim(late, verdictOK) // the other did not come back
	claim(restarted, verdictPast)

	claim(Instance{Incarnation: 2, Start: 1, Nonce: "next"}, verdictOK) // a new life begins with an empty log
	if v, _, _ := all.admit("n-1", run(9, "copy", 9), conn); v != verdictTwin {
		t.Errorf("a copy of this very node: %s", v)
	}
	again := NewInstances("n-1", Instance{Nonce: "me"}, all.Export(), nil)
	if v, _ := again.met("n-2", Instance{Incarnation: 2, Start: 1, Nonce: "other"}, "x"); v != verdictPast {
		t.Errorf("the memory does not outlive a restart: %s", v)
	}
	if fresh != 4 {
		t.Errorf("%d runs replaced another, want 4", fresh)
	}
}

// TestIncarnationsKeepApart: who is of an older life of the cluster is told,
// whichever end dials.
func TestIncarnationsKeepApart(t *testing.T) {
	ca, b := newTestCA(t), newBook()
	told := map[cluster.NodeID]chan error{"n-old": make(chan error, 9), "n-new": make(chan error, 9)}
	var proof atomic.Pointer[string]
	prove := func(ca CA, in cluster.Incarnation) {
		text, err := ca.SignLife(in)
		if err != nil {
			t.Fatal(err)
		}
		proof.Store(&text)
	}
	ours, foreign := CA{ClusterID: ca.id, Cert: ca.cert, Key: ca.key}, newTestCA(t)
	prove(ours, 2)
	server := func(id cluster.NodeID, incarnation cluster.Incarnation) *Server {
		s := start(t, Config{
			Identity: ca.identity(t, id), ClusterID: ca.id, Self: id, Resolve: b.resolve, Member: b.member,
			Instance: Instance{Incarnation: incarnation, Start: 1, Nonce: NewNonce()},
			Proof:    func() string { return *proof.Load() },
			Refused:  func(err error) { told[id] <- err },
		}, nil)
		b.set(id, s.Addr().String())
		return s
	}
	older, newer := server("n-old", 1), server("n-new", 2)
	var ie *IncarnationError
	for _, dial := range []func() error{
		func() error { _, _, err := older.connect(testContext(t), "n-new", protoRaft); return err },
		func() error { _, _, err := newer.connect(testContext(t), "n-old", protoRaft); return err },
	} {
		if err := dial(); !errors.As(err, &ie) {
			t.Fatalf("they speak: %v", err)
		}
		if err := <-told["n-old"]; !errors.As(err, &ie) || !ie.Yield() || ie.Theirs != 2 || ie.Node != "n-new" {
			t.Errorf("the older node was told %v", err)
		}
		// What proves nothing makes nobody yield: no word of the cluster's CA, that
		// of another one, of another cluster, or on another life.
		for what, forge := range map[string]func(){
			"nothing":         func() { none := ""; proof.Store(&none) },
			"rubbish":         func() { none := "%%"; proof.Store(&none) },
			"another CA":      func() { prove(CA{ClusterID: ca.id, Cert: foreign.cert, Key: foreign.key}, 2) },
			"another cluster": func() { prove(CA{ClusterID: foreign.id, Cert: ca.cert, Key: ca.key}, 2) },
			"another life":    func() { prove(ours, 3) },
		} {
			forge()
			if err := dial(); !errors.As(err, &ie) {
				t.Fatalf("they speak: %v", err)
			}
			if err := <-told["n-old"]; !errors.As(err, &ie) || ie.Yield() || !strings.Contains(err.Error(), "not believed") {
				t.Errorf("the older node yields to %s: %v", what, err)
			}
		}
		prove(ours, 2)
		for len(told["n-new"]) > 0 {
			if err := <-told["n-new"]; errors.As(err, &ie) && ie.Yield() {
				t.Errorf("the newer node is to yield: %v", err)
			}
		}
	}
	// A removed node hears that, and nobody yields to it.
	b.remove("n-new")
	if _, _, err := newer.connect(testContext(t), "n-old", protoGRPC); !errors.Is(err, cluster.ErrNotMember) {
		t.Errorf("a removed node: %v", err)
	}
	if len(told["n-old"]) > 0 {
		t.Errorf("a removed node made a member yield: %v", <-told["n-old"])
	}
}
