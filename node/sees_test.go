package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/doctor"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func TestSights(t *testing.T) {
	root := t.TempDir()
	const there, elsewhere = "doctor-0123456789abcdef", "doctor-ffffffffffffffff"
	if err := os.MkdirAll(filepath.Join(root, ".gatesync", there), 0o755); err != nil {
		t.Fatal(err)
	}
	s := newSights([]config.Tree{{Name: "server", Path: root}, {Name: "gone", Path: filepath.Join(root, "gone")}})
	for _, c := range []struct {
		tree, nonce string
		has, sees   bool
		err         string
	}{
		{"server", there, true, true, ""},
		{"server", elsewhere, true, false, ""},
		{"server", "../" + there, true, false, "does not know such a name"},
		{"server", "marker.json", true, false, "does not know such a name"},
		{"gone", there, true, false, ""},
		{"unknown", there, false, false, ""},
	} {
		res := s.ask(t.Context(), &pb.SeesRequest{Tree: c.tree, Nonce: c.nonce})
		if res.GetHas() != c.has || res.GetSees() != c.sees || !strings.Contains(res.GetError(), c.err) || c.err == "" && res.GetError() != "" {
			t.Errorf("%s %s: %v", c.tree, c.nonce, res)
		}
	}
}

// A directory that hangs costs the caller its deadline, the daemon one
// goroutine, and the next caller nothing.
func TestSightsOfAHungDirectory(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "tree")
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	s := newSights([]config.Tree{{Name: "server", Path: fifo}})
	req := &pb.SeesRequest{Tree: "server", Nonce: "doctor-0123456789abcdef"}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if res := s.ask(ctx, req); !strings.Contains(res.GetError(), "does not answer") {
		t.Errorf("%v", res)
	}
	if res := s.ask(t.Context(), req); !strings.Contains(res.GetError(), "has not ended") {
		t.Errorf("%v", res)
	}
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(fifo), w.Close()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if res := s.ask(t.Context(), req); res.GetError() != "" {
			return errors.New(res.GetError())
		}
		return nil
	})
}

// Who asks the members learns whether they see what stands under .gatesync, how
// their clocks are and when their certificates end: with a daemon and without.
func TestSurvey(t *testing.T) {
	a, b := newGateway(t, "gw1"), newGateway(t, "gw2")
	if _, err := Init(t.Context(), a.cfg); err != nil {
		t.Fatal(err)
	}
	a.run()
	if err := b.join(a, a.token(time.Minute, 1)); err != nil {
		t.Fatal(err)
	}
	b.run()
	marked := filepath.Join(b.cfg.Trees[0].Path, ".gatesync")
	eventually(t, func() error { _, err := os.Stat(filepath.Join(marked, "marker.json")); return err })
	const here, nowhere = "doctor-0123456789abcdef", "doctor-ffffffffffffffff"
	if err := os.Mkdir(filepath.Join(marked, here), 0o755); err != nil {
		t.Fatal(err)
	}
	ask := func(nonce string) (*Surveyed, doctor.Cluster) {
		t.Helper()
		s, err := Survey(t.Context(), a.cfg)
		if err != nil {
			t.Fatal(err)
		}
		c := s.Ask(t.Context(), map[string]string{"server": nonce})
		if c.Err != "" || len(c.Members) != 1 || c.Name != "gw1" || !c.CertEnds.After(time.Now()) {
			t.Fatalf("%+v", c)
		}
		return s, c
	}
	check := func(running bool) {
		t.Helper()
		s, c := ask(here)
		m := c.Members[0]
		if m.Err != "" || !m.HasClock || m.Clock.Abs() > m.ClockErr+time.Second || !m.CertEnds.After(time.Now()) || m.Sights[0] != (doctor.Sight{Tree: "server", Has: true, Sees: true}) {
			t.Errorf("%+v", m)
		}
		if c.Running != running || (s.DaemonPID != 0) != running || s.DaemonHung || len(s.Damaged) > 0 {
			t.Errorf("running: %v; %+v; %+v", running, c, s)
		}
		if _, c := ask(nowhere); c.Members[0].Sights[0].Sees {
			t.Error("sees what is not there")
		}
		marker, err := os.ReadFile(filepath.Join(marked, "marker.json"))
		if err != nil || s.JudgeMarker("server", marker) != nil {
			t.Errorf("the marker is the tree's: %v, %v", err, s.JudgeMarker("server", marker))
		}
		if err := s.JudgeMarker("server", []byte(`{"format":1,"cluster":"c-other"}`)); err == nil || !strings.Contains(err.Error(), "c-other") {
			t.Errorf("another's marker: %v", err)
		}
	}
	eventually(t, func() error {
		if _, c := ask(here); strings.HasSuffix(c.Members[0].Address, ":0") {
			return errors.New("where gw2 listens is not known yet")
		}
		return nil
	})
	check(true)
	a.stop()
	check(false)
	b.stop()
	if _, c := ask(here); c.Members[0].Err == "" {
		t.Errorf("%+v", c.Members[0])
	}
	if _, err := Survey(t.Context(), config.Config{DataDir: t.TempDir()}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory without a node: %v", err)
	}
}
