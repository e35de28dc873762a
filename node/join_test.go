package node

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/gatesync/gatesync/transport"
)

// The power fails right after a join, and its note comes back: the next start
// clears it away, and a node that joins again is a new one, never its old self.
func TestANoteOfAJoinThatOutlivedItMakesNoOldSelf(t *testing.T) {
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
	put(joining{Node: "n-00000000000000aa", Key: key})
	g[1].run()
	g[1].stop()
	if id := again("gw5"); id != "n-00000000000000aa" {
		t.Errorf("an interrupted join begins anew, as %s", id)
	}
}
