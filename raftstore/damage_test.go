package raftstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// past makes the log of a node that has written, been restarted and has made
// two snapshots, and closes it.
func past(t *testing.T) (c *testCluster, dir string) {
	t.Helper()
	c = newTestCluster(t)
	c.tune.TrailingLogs = 1
	s := c.found(1)[0]
	for i := range 30 {
		c.mkdir(s, fmt.Sprint("a", i))
	}
	c.must(s.raft.Snapshot().Error())
	for i := range 10 {
		c.mkdir(s, fmt.Sprint("b", i))
	}
	c.must(s.raft.Snapshot().Error())
	for i := range 10 {
		c.mkdir(s, fmt.Sprint("c", i))
	}
	c.close(s)
	return c, s.cfg.Dir
}

// replay does what a start does, without Raft: snapshot, then log.
func replay(t testing.TB, dir string) (state []byte, err error) {
	t.Helper()
	d, err := openDisk(dir)
	if err != nil {
		return nil, promised(err)
	}
	defer d.Close()
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, keepSnapshots, newRaftLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: Config{Dir: dir}, log: slog.New(slog.DiscardHandler), disk: d}
	kept := &snapshots{SnapshotStore: files, dir: dir, log: s.log, renew: func() {}}
	if err := s.whole(kept); err != nil {
		return nil, promised(err)
	}
	f := &fsm{machine: NewMachine(), moved: func() {}}
	list, err := kept.List()
	if err != nil {
		return nil, err
	}
	at := uint64(0)
	if len(list) > 0 {
		m, in, err := kept.Open(list[0].ID)
		if err != nil {
			t.Fatalf("a snapshot that passed the inspection: %v", err)
		}
		if err := f.Restore(in); err != nil {
			t.Fatalf("a snapshot that passed the inspection: %v", err)
		}
		f.StoreConfiguration(m.ConfigurationIndex, m.Configuration)
		at = m.Index
	}
	for _, last := d.ends(); at < last; {
		at++
		var e raft.Log
		if err := d.GetLog(at, &e); err != nil {
			return nil, promised(err)
		}
		switch e.Type {
		case raft.LogCommand:
			f.Apply(&e)
		case raft.LogConfiguration:
			f.StoreConfiguration(e.Index, raft.DecodeConfiguration(e.Data))
		}
	}
	return snapshotOf(t, f.machine), nil
}

func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func files(t testing.TB, dir string) (all []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			all = append(all, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestPromise_Order_DamagedLogIsNotApplied flips and cuts every file of a log,
// and everything is as it was, or the error names what is damaged.
func TestPromise_Order_DamagedLogIsNotApplied(t *testing.T) {
	_, dir := past(t)
	want, err := replay(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "n")
	rnd := rand.New(rand.NewPCG(8, 9))
	copyDir(t, dir, at)
	sound, refused := 0, 0
	try := func(name, what string, b []byte) {
		t.Helper()
		file := filepath.Join(at, name)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := replay(t, at)
		var damaged *DamagedError
		switch {
		case err == nil && bytes.Equal(got, want):
			sound++
		case errors.As(err, &damaged) && damaged.File != "" && strings.Contains(err.Error(), "--again"):
			refused++
		default:
			t.Fatalf("%s, %s: another state, or %v", name, what, err)
		}
		copyDir(t, dir, at)
	}
	places := 50
	if os.Getenv("GATESYNC_LONG") != "" {
		places = 1000
	}
	for _, name := range files(t, dir) {
		whole, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		var flips []int
		for i := range min(places, len(whole)) {
			at := i * len(whole) / min(places, len(whole))
			flips = append(flips, min(len(whole)-1, at+rnd.IntN(max(1, len(whole)/places))))
		}
		for _, i := range flips {
			b := slices.Clone(whole)
			b[i] ^= byte(1 << rnd.IntN(8))
			try(name, fmt.Sprint("flip at ", i), b)
		}
		for range 12 {
			n := rnd.IntN(len(whole))
			try(name, fmt.Sprint("cut to ", n), whole[:n])
		}
	}
	if sound == 0 || refused == 0 {
		t.Errorf("%d were sound and %d refused: this test tests nothing", sound, refused)
	}
}

// TestADamagedSnapshotIsMadeUpFor: the newest is damaged, or both.
func TestADamagedSnapshotIsMadeUpFor(t *testing.T) {
	c, dir := past(t)
	var states []string
	for _, name := range files(t, dir) {
		if filepath.Base(name) == "state.bin" {
			states = append(states, filepath.Join(dir, name))
		}
	}
	slices.Sort(states)
	if len(states) != 2 {
		t.Fatalf("snapshots %q", states)
	}
	flip := func(file string) {
		b, err := os.ReadFile(file)
		c.must(err)
		b[len(b)/2] ^= 4
		c.must(os.WriteFile(file, b, 0o600))
	}
	flip(states[1])
	s := c.open("n-1")
	c.must(s.Barrier(c.ctx()))
	if s.Revision() != 50 || !has(s, "a0") || !has(s, "b9") || !has(s, "c9") {
		t.Fatalf("revision %d", s.Revision())
	}
	c.mkdir(s, "again")
	c.close(s)

	flip(states[0])
	cfg := c.config("n-1")
	cfg.Stream = c.net.layer(t, "n-1")
	defer cfg.Stream.Close()
	_, err := Open(cfg)
	var damaged *DamagedError
	if !errors.As(err, &damaged) || !strings.Contains(damaged.File, filepath.Base(filepath.Dir(states[0]))) {
		t.Fatalf("opened without a usable snapshot: %v", err)
	}
}

// TestALogThatBreaksWhileItRunsEndsTheNode: the node falls silent and says why,
// and the others elect a leader.
func TestALogThatBreaksWhileItRunsEndsTheNode(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	leader, others := c.leader(stores)
	c.must(os.Truncate(filepath.Join(leader.cfg.Dir, logFile), 4096))
	ctx, cancel := context.WithCancel(c.ctx())
	var proposes sync.WaitGroup
	proposes.Go(func() { _, _ = leader.Propose(ctx, makeDir("lost")) }) // it has to write
	err := leader.Guard(c.ctx())
	cancel()
	proposes.Wait()
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), logFile) {
		t.Fatalf("guard: %v", err)
	}
	c.mkdir(others[0], "without it")
	c.close(leader)
	c.agree(others...)
	next := t.TempDir() // the file stays open, and locked, until the process ends
	copyDir(t, leader.cfg.Dir, next)
	_, err = openDisk(next)
	if !errors.Is(promised(err), ErrDamaged) {
		t.Fatalf("opened what is damaged: %v", err)
	}
}

// TestPromise_Order_DamagedSnapshotIsNotInstalled: what is damaged on the
// leader's disk is not sent, and replaced by a new one.
func TestPromise_Order_DamagedSnapshotIsNotInstalled(t *testing.T) {
	for _, what := range []string{"state.bin", "meta.json"} {
		t.Run(what, func(t *testing.T) {
			c := newTestCluster(t)
			c.tune.TrailingLogs = 1
			stores := c.found(3)
			leader, others := c.leader(stores)
			lagging := others[0]
			c.close(lagging)
			both := []*Store{leader, others[1]} // leadership may move on a busy machine
			mkdir := func(name string) {
				leader, _ := c.leader(both)
				c.mkdir(leader, name)
			}
			for i := range 20 {
				mkdir(fmt.Sprint("d", i))
			}
			for i := range 3 {
				mkdir(fmt.Sprint("e", i))
				c.agree(both...)
				for _, s := range both {
					c.must(s.raft.Snapshot().Error())
				}
			}
			for _, s := range both {
				damageSnapshots(t, s.cfg.Dir, what)
			}
			lagging = c.open(lagging.cfg.ID)
			c.must(lagging.Barrier(c.ctx()))
			c.await(lagging, "a snapshot", func() bool { return lagging.Stats()["last_snapshot_index"] != "0" })
			c.agree(leader, others[1], lagging)
			aside := 0
			for _, s := range both {
				entries, _ := os.ReadDir(filepath.Join(s.cfg.Dir, damagedDir))
				aside += len(entries)
			}
			if aside == 0 {
				t.Error("nothing was set aside")
			}
		})
	}
}

// damageSnapshots flips a byte in each file of this name.
func damageSnapshots(t *testing.T, dir, what string) {
	t.Helper()
	for _, name := range files(t, dir) {
		if filepath.Base(name) != what {
			continue
		}
		file := filepath.Join(dir, name)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if what == "meta.json" { // still JSON
			b = bytes.Replace(b, []byte(`"Term":`), []byte(`"Term":1`), 1)
		} else {
			b[len(b)/3] ^= 1
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOnlyAWholeSnapshotBecomesOne: what comes from a leader is read before it
// counts.
func TestOnlyAWholeSnapshotBecomesOne(t *testing.T) {
	dir := t.TempDir()
	inner, err := raft.NewFileSnapshotStoreWithLogger(dir, keepSnapshots, newRaftLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	kept := &snapshots{SnapshotStore: inner, dir: dir, log: slog.New(slog.DiscardHandler), made: func(uint64) error { return nil }, renew: func() {}}
	m := NewMachine()
	m.Apply(&pb.Command{Format: Format, Do: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: "c-1"}}})
	m.Apply(&pb.Command{Format: Format, Do: &pb.Command_PutMember{PutMember: &pb.PutMember{Member: FromMember(member("n-1"))}}})
	whole := append(make([]byte, 8), snapshotOf(t, m)...)
	_, trans := raft.NewInmemTransport("n-1")
	write := func(b []byte) error {
		sink, err := kept.Create(1, 7, 1, raft.Configuration{Servers: []raft.Server{{ID: "n-1", Address: "n-1"}}}, 1, trans)
		if err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 {
			n := min(len(b), 10)
			if _, err := sink.Write(b[:n]); err != nil {
				return errors.Join(err, sink.Cancel())
			}
			b = b[n:]
		}
		return sink.Close()
	}
	for i := 8; i < len(whole); i++ { // the first 8 are an index, which Raft keeps as well
		flipped := slices.Clone(whole)
		flipped[i] ^= 0x20
		if write(flipped) == nil {
			t.Errorf("a flip at %d was not noticed", i)
		}
		if write(whole[:i]) == nil {
			t.Errorf("a cut at %d was not noticed", i)
		}
	}
	if write(append(slices.Clone(whole), 0)) == nil {
		t.Error("a byte too many was not noticed")
	}
	if list, err := kept.List(); err != nil || len(list) != 0 {
		t.Fatalf("%d snapshots came of it (%v)", len(list), err)
	}
	if err := write(whole); err != nil {
		t.Fatal(err)
	}
	list, err := kept.List()
	if err != nil || len(list) != 1 || list[0].Size != int64(len(whole)) {
		t.Fatalf("%+v %v", list, err)
	}
}
