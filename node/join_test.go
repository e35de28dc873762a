package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// The power fails right after a join, and its note comes back: the next start
// clears it away, and a node that joins again is a new one, never its old self.
func TestANoteOfAJoinThatOutlivedItMakesNoOldSelf(t *testing.T) {
	t.Parallel()
	g := [2]*gateway{newGateway(t, "gw1"), newGateway(t, "gw2")}
	if _, err := Init(t.Context(), g[0].cfg); err != nil {
		t.Fatal(err)
	}
	g[0].run()
	d := dataDir(g[1].cfg.DataDir)
	again := func(name string) string {
		t.Helper()
		g[1].cfg.Name = name
		made, err := Join(t.Context(), g[1].cfg, JoinOptions{Via: g[0].address(), Token: g[0].token(time.Minute, 1), Again: true, Version: "test"})
		if err != nil {
			t.Fatal(err)
		}
		return string(made.Node)
	}
	ids := map[string]string{}
	note := func() joining {
		t.Helper()
		f, err := d.readNode()
		if err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(identityFiles(g[1].cfg).Key)
		if err != nil {
			t.Fatal(err)
		}
		return joining{Node: f.Node, Key: key}
	}
	put := func(j joining) {
		t.Helper()
		if err := writeJSON(d.joining(), j); err != nil {
			t.Fatal(err)
		}
	}
	ids[again("gw2")] = "the first"
	first := note()
	put(first)
	second := again("gw3")
	if who := ids[second]; who != "" {
		t.Fatalf("it came back as %s", who)
	}
	ids[second] = "the second"
	put(first) // of a former self
	if who := ids[again("gw4")]; who != "" {
		t.Fatalf("it came back as %s", who)
	}

	put(note())
	g[1].run()
	g[1].stop()
	if _, err := os.Stat(d.joining()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the note of a join outlives the start: %v", err)
	}
	// One that was interrupted goes on.
	key, err := transport.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	begun, err := idOfKey(key)
	if err != nil {
		t.Fatal(err)
	}
	put(joining{Node: begun, Key: key})
	g[1].run()
	g[1].stop()
	if id := again("gw5"); id != string(begun) {
		t.Errorf("an interrupted join begins anew, as %s", id)
	}
	// Unless the cluster has removed the node that it was to make.
	err = g[0].local(func(ctx context.Context, c pb.LocalClient) error {
		_, err := c.RemoveNode(ctx, &pb.RemoveNodeRequest{Node: "gw5", Force: true})
		return err
	})
	if err = errors.Join(err, os.Remove(d.nodeFile())); err != nil {
		t.Fatal(err)
	}
	put(joining{Node: begun, Key: key})
	g[1].cfg.Name = "gw6"
	o := JoinOptions{Via: g[0].address(), Token: g[0].token(time.Minute, 1), Again: true, Version: "test"}
	if _, err := Join(t.Context(), g[1].cfg, o); err == nil || !strings.Contains(err.Error(), "run the command again") {
		t.Errorf("an interrupted join of a removed node: %v", err)
	}
	if id := again("gw6"); id == string(begun) {
		t.Error("it came back as what was removed")
	}
}

// Whatever keeps a node from going on as itself, the remedy is the same.
func TestOneRemedyForWhoCannotGoOn(t *testing.T) {
	for _, err := range []error{
		&PartError{DataDir: "/d", Part: "raft"}, &PartError{DataDir: "/d", Part: "tls"}, &PartError{DataDir: "/d", Part: "node.json"},
		&raftstore.DamagedError{File: "log.db", Err: errors.New("x")},
		&transport.TwinError{Addr: "a:1"}, &transport.WentBackError{Addr: "a:1"}, &transport.RemovedError{Addr: "a:1"},
	} {
		if text := err.Error(); !strings.Contains(text, cluster.JoinAgain) || strings.Contains(text, "new data directory") {
			t.Errorf("%T: %s", err, text)
		}
	}
}

// A token is used up, and somebody finds it: it admits nobody any more, and
// makes no certificate of the node that used it. That node itself may ask
// again, for its answer may have been lost.
func TestPromise_OwnTree_AUsedTokenMakesNobodyElsesCertificate(t *testing.T) {
	g := [2]*gateway{newGateway(t, "gw1"), newGateway(t, "gw2")}
	if _, err := Init(t.Context(), g[0].cfg); err != nil {
		t.Fatal(err)
	}
	g[0].run()
	token := g[0].token(time.Minute, 1)
	tok, err := transport.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	d := dataDir(g[1].cfg.DataDir)
	lock, err := d.prepare()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	j, err := d.beginJoin()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(j joining) error {
		t.Helper()
		req, err := joinRequest(g[1].cfg, tok, j, "127.0.0.1:1", nil, JoinOptions{Version: "test"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = askToJoin(t.Context(), g[0].address(), tok, req)
		return err
	}
	if err := errors.Join(ask(j), ask(j)); err != nil {
		t.Errorf("the node itself, twice: %v", err)
	}
	thief := j
	if thief.Key, err = transport.NewKey(); err != nil {
		t.Fatal(err)
	}
	if err := ask(thief); err == nil || !strings.Contains(err.Error(), "not its key's") {
		t.Errorf("whoever finds the token gets the certificate of who used it: %v", err)
	}
	if thief.Node, err = idOfKey(thief.Key); err != nil {
		t.Fatal(err)
	}
	if err := ask(thief); err == nil || !strings.Contains(err.Error(), "used up") {
		t.Errorf("a used token admits somebody else: %v", err)
	}
}
